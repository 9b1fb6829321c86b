"""What a tokenizer.json says about ids, and one made here: an id a byte, and five specials.

The file is written by hand, because the load tester does without the library that reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from santacoder_client.loadtest.errors import UsageError

END_OF_TEXT = "<|endoftext|>"
SENTINELS = ("<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
PLAIN_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ .,:=()\u0120\u010a"
)
"""In the byte-level alphabet a space is written U+0120 and a line end U+010A."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A tokenizer as the router gets it, and the ids that a simulated model makes use of."""

    content: bytes
    token_count: int
    end_of_text_id: int
    sentinel_ids: tuple[int, ...]
    plain_ids: tuple[int, ...]
    """Ids whose text is whole ASCII characters, so that any row of them is text."""


def byte_tokenizer() -> TokenizerFile:
    """One id a byte, 0 to 255 in the order of the byte-level alphabet, and the specials after."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(_byte_alphabet()))}
    specials = (END_OF_TEXT, *SENTINELS)
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(len(vocabulary) + place, name) for place, name in enumerate(specials)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    return read_tokenizer(json.dumps(whole).encode(), "built in")


def read_tokenizer(content: bytes, name: str) -> TokenizerFile:
    """Reads a tokenizer.json. Raises UsageError if it is none that SantaCoder could have."""
    try:
        whole: dict[str, Any] = json.loads(content)
        vocabulary: dict[str, int] = whole["model"]["vocab"]
        added = {each["content"]: each["id"] for each in whole["added_tokens"]}
        ids = {**vocabulary, **added}
        plain = [number for text, number in vocabulary.items() if PLAIN_CHARACTERS.issuperset(text)]
        end_of_text_id = ids[END_OF_TEXT]
        token_count = max(ids.values()) + 1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__} {error}"
        raise UsageError(
            f"--tokenizer: cannot be read ({problem}); got {name!r};"
            f" allowed a tokenizer.json with {END_OF_TEXT}"
        ) from None
    ordinary = sorted(set(plain) - set(added.values()))
    if not ordinary:
        raise UsageError(
            f"--tokenizer: no token of plain letters; got {name!r}; allowed a byte-level vocabulary"
        )
    return TokenizerFile(
        content=content,
        token_count=token_count,
        end_of_text_id=end_of_text_id,
        sentinel_ids=tuple(ids[name] for name in SENTINELS if name in ids),
        plain_ids=tuple(ordinary),
    )


def _byte_alphabet() -> list[str]:
    """A printable character for every byte: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + place) for place in range(len(others))]


def _added(number: int, content: str) -> dict[str, object]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
