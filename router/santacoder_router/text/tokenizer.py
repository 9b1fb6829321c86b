"""Byte-level BPE: text to ids and ids to bytes, from the tokenizer.json that the shards send.

Text is text: a string that spells a special token is encoded as its characters. Refuses to know
where sentinels go and how long a prompt may be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import tokenizers

from santacoder_router.errors import Overloaded, Reason, shown
from santacoder_router.text.fim import Sentinels
from santacoder_router.text.prompt import InfillPrompt, Prompt, PromptIds, TextPrompt, TokenPrompt

Result = TypeVar("Result")

END_OF_TEXT = "<|endoftext|>"
FIM_FAMILIES = (
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>"),
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),
)
# Bytes that are in no UTF-8 text; a vocabulary may lack them.
NEVER_IN_UTF8 = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))
PANIC = "PanicException"
# The table of bytes by id is as long as the greatest id, whoever wrote it into the file.
MOST_IDS = 1 << 24
# Below this many characters encoding takes less than about 0.3 ms, and a thread would cost more.
INLINE_CHARACTER_COUNT = 1024


class TokenizerFileError(ValueError):
    """tokenizer.json is not one that this server can use; the message says why, on one line."""


class Tokenizer:
    """A checkpoint's tokenizer. Nothing in it changes after construction: threads may share it."""

    def __init__(self, tokenizer_json: bytes) -> None:
        """Raises TokenizerFileError if the file is damaged or no byte-level BPE."""
        content = _parse(tokenizer_json)
        added = _added_tokens(content)
        # Without its added tokens an encoder cannot find one in text, special or not.
        content["added_tokens"] = []
        content.update(truncation=None, padding=None, post_processor=None)
        try:
            self._encoder = tokenizers.Tokenizer.from_str(json.dumps(content))
        except BaseException as error:
            # The library raises bare Exception, and a panic of it is not even that.
            if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                raise
            raise TokenizerFileError(f"tokenizer.json: {shown(error)}") from error
        vocabulary = self._encoder.get_vocab() | added
        self._bytes_of = _bytes_of_ids(vocabulary, added)
        self.special_tokens = dict(sorted(added.items(), key=lambda item: item[1]))
        """Spelling to id of every added token, in order of id."""
        self.end_of_text_id: int | None = vocabulary.get(END_OF_TEXT)
        self.sentinels: Sentinels | None = _sentinels(vocabulary)

    @property
    def token_count(self) -> int:
        """One more than the greatest id."""
        return len(self._bytes_of)

    def encode(self, *texts: str) -> list[list[int]]:
        """The ids of each text, none added. Long texts run without the interpreter lock."""
        # The batch form is the one that lets go of the lock, and skips offsets that nobody reads.
        try:
            encodings = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        except BaseException as error:
            if type(error).__name__ != PANIC:
                raise
            # Not an Exception, and so nobody's to catch: it would end more than this request.
            raise RuntimeError("the tokenizer has panicked") from error
        return [encoding.ids for encoding in encodings]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one id, special tokens as their spelling. IndexError beyond the last id."""
        return self._bytes_of[token_id]

    def joined_bytes(self, token_ids: Sequence[int]) -> bytes:
        """The bytes of ids, one after the other. IndexError beyond the last id."""
        bytes_of = self._bytes_of
        return b"".join([bytes_of[token_id] for token_id in token_ids])

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no whole character show as U+FFFD."""
        return self.joined_bytes(token_ids).decode("utf-8", errors="replace")

    def echo(self, prompt: Prompt) -> str:
        """The prompt as an echo puts it in front of the text: for an infill, the prefix."""
        match prompt:
            case TextPrompt():
                return prompt.text
            case InfillPrompt():
                return prompt.prefix
            case TokenPrompt():
                return self.detokenize(prompt.token_ids)


class TokenizerThreads:
    """Encodes off the event loop, within a time budget."""

    def __init__(self, tokenizer: Tokenizer, thread_count: int, budget_seconds: float) -> None:
        self._tokenizer = tokenizer
        self._budget_seconds = budget_seconds
        self._threads = ThreadPoolExecutor(thread_count, thread_name_prefix="tokenizer")

    async def encode(self, *texts: str) -> list[list[int]]:
        """The ids of each text. Raises Overloaded when that takes longer than the budget.

        The budget includes the wait for a thread; a text still waiting then is never encoded.
        """
        if sum(map(len, texts)) <= INLINE_CHARACTER_COUNT:
            return self._tokenizer.encode(*texts)
        return await self.run(partial(self._tokenizer.encode, *texts))

    async def run(self, work: Callable[[], Result]) -> Result:
        """What some other work with texts gives; raises Overloaded as `encode` does."""
        running = self._threads.submit(work)
        try:
            async with asyncio.timeout(self._budget_seconds):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            raise Overloaded(
                Reason.TOKENIZER_BUDGET,
                f"prompt: tokenizing took too long; got over {self._budget_seconds:g} s;"
                f" allowed {self._budget_seconds:g} s",
            ) from None

    async def encode_prompt(self, prompt: Prompt) -> PromptIds:
        """A prompt's parts as ids. Raises Overloaded as `encode` does."""
        match prompt:
            case TextPrompt():
                [ids] = await self.encode(prompt.text)
                return PromptIds(tuple(ids))
            case InfillPrompt():
                prefix, suffix = await self.encode(prompt.prefix, prompt.suffix)
                return PromptIds(tuple(prefix), tuple(suffix), prompt.order)
            case TokenPrompt():
                return PromptIds(prompt.token_ids)

    def close(self) -> None:
        """Drop what waits, and return when what runs has ended."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _parse(tokenizer_json: bytes) -> dict[str, Any]:
    try:
        content = json.loads(tokenizer_json)
    except ValueError as error:
        raise TokenizerFileError(f"tokenizer.json: not JSON: {shown(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerFileError("tokenizer.json: holds no tokenizer model")
    return content


def _added_tokens(content: Mapping[str, Any]) -> dict[str, int]:
    try:
        return {token["content"]: int(token["id"]) for token in content.get("added_tokens") or ()}
    except (TypeError, KeyError, ValueError) as error:
        raise TokenizerFileError("tokenizer.json: added_tokens is not a list of tokens") from error


def _byte_symbols() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 stands for itself; the others, in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _bytes_of_ids(vocabulary: Mapping[str, int], added: Mapping[str, int]) -> list[bytes]:
    """Bytes by id. An id that stands for nothing has none."""
    symbols = _byte_symbols()
    # A byte without a symbol would be dropped from every prompt in silence.
    missing = [
        byte
        for symbol, byte in symbols.items()
        if byte not in NEVER_IN_UTF8 and symbol not in vocabulary
    ]
    if missing:
        raise TokenizerFileError(
            f"tokenizer.json: not a byte-level BPE: no symbol for byte {missing[0]:#04x}"
        )
    lowest, highest = min(vocabulary.values()), max(vocabulary.values())
    if lowest < 0 or highest >= MOST_IDS:
        got = lowest if lowest < 0 else highest
        raise TokenizerFileError(
            f"tokenizer.json: a token id is out of range; got {got}; allowed 0..{MOST_IDS - 1}"
        )
    table = [b""] * (highest + 1)
    for token, token_id in vocabulary.items():
        if token in added or any(character not in symbols for character in token):
            table[token_id] = token.encode()
        else:
            table[token_id] = bytes(symbols[character] for character in token)
    return table


def _sentinels(vocabulary: Mapping[str, int]) -> Sentinels | None:
    for family in FIM_FAMILIES:
        if all(name in vocabulary for name in family):
            prefix, middle, suffix = (vocabulary[name] for name in family)
            return Sentinels(prefix=prefix, middle=middle, suffix=suffix)
    return None
