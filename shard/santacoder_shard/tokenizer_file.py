"""Reads tokenizer.json for the ids a shard must know, and mends old revisions; encodes no text.

The end-of-text id comes from here and never from a config, whose id may be outside the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from santacoder_shard import strict_json
from santacoder_shard.errors import CheckpointError

TOKENIZER_LIMIT_BYTES = 64 << 20
END_OF_TEXT = "<|endoftext|>"
# In the order of SantaCoder's ids, which old revisions of its tokenizer lack.
SANTACODER_SPECIALS = (END_OF_TEXT, "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
SENTINEL_PARTS = ("prefix", "suffix", "middle", "pad")
PANIC = "PanicException"
# Bytes that never occur in UTF-8; tokenizers trained on text lack their symbols.
NEVER_IN_UTF8 = frozenset(chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A tokenizer.json as the router gets it, and the ids in it."""

    json_bytes: bytes
    token_count: int
    """One more than the greatest id."""
    end_of_text_id: int
    sentinel_ids: tuple[int, ...]
    """Prefix, suffix, middle, pad; empty if the tokenizer lacks any of them."""
    has_underscore_sentinels: bool
    """StarCoder's spelling, <fim_prefix>, and not SantaCoder's, <fim-prefix>."""


def read_tokenizer(path: Path, vocabulary_size: int) -> TokenizerFile:
    """Read tokenizer.json; a CheckpointError if an embedding of that many rows does not fit it."""
    data = strict_json.read_file(path, TOKENIZER_LIMIT_BYTES)
    tokenizer = _parse(path, data)
    if _mend(tokenizer):
        data = tokenizer.to_str().encode()
    ids = tokenizer.get_vocab(with_added_tokens=True)
    _check_added(path, data, ids)
    _check_byte_symbols(path, ids)
    highest = max(ids.values())
    if highest >= vocabulary_size:
        raise CheckpointError(
            f"{path.name}: has ids outside the embedding; got {highest}; "
            f"allowed 0 to {vocabulary_size - 1}"
        )
    if END_OF_TEXT not in ids:
        raise CheckpointError(f"{path.name}: lacks the token {END_OF_TEXT}")
    hyphens, underscores = (
        tuple(ids[f"<fim{mark}{part}>"] for part in SENTINEL_PARTS if f"<fim{mark}{part}>" in ids)
        for mark in "-_"
    )
    has_hyphens = len(hyphens) == len(SENTINEL_PARTS)
    has_underscores = len(underscores) == len(SENTINEL_PARTS) and not has_hyphens
    return TokenizerFile(
        json_bytes=data,
        token_count=highest + 1,
        end_of_text_id=ids[END_OF_TEXT],
        sentinel_ids=hyphens if has_hyphens else underscores if has_underscores else (),
        has_underscore_sentinels=has_underscores,
    )


def _parse(path: Path, data: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except BaseException as error:
        # The library raises bare Exception for a file that it cannot read, and a panic of it is
        # not even that.
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name}: is not a tokenizer file: {reason:.120}") from error


def _mend(tokenizer: Tokenizer) -> bool:
    """Add the specials an old revision lacks, drop stored cutting and padding; True if changed."""
    is_old = tokenizer.token_to_id(END_OF_TEXT) is None
    cuts = tokenizer.truncation is not None or tokenizer.padding is not None
    if is_old:
        tokenizer.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in SANTACODER_SPECIALS]
        )
    if cuts:
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return is_old or cuts


def _check_added(path: Path, data: bytes, ids: dict[str, int]) -> None:
    """The library gives a token another id where the file's is taken; the router would not."""
    for token in strict_json.parse_object(data, path.name).get("added_tokens") or ():
        name, number = token["content"], token["id"]
        if ids[name] != number:
            raise CheckpointError(
                f"{path.name}: added_tokens: {name!r:.60}: its id is taken, or skips others;"
                f" got {number}; allowed {ids[name]}"
            )


def _check_byte_symbols(path: Path, ids: dict[str, int]) -> None:
    """A byte symbol that the vocabulary lacks would be dropped from text without a word."""
    wanted = set(pre_tokenizers.ByteLevel.alphabet()) - NEVER_IN_UTF8
    missing = wanted - ids.keys()
    if missing:
        raise CheckpointError(
            f"{path.name}: is not a byte-level tokenizer: lacks {len(missing)} of {len(wanted)} "
            "byte symbols"
        )
