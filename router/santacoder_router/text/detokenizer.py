"""Token ids to whole characters, as they come, for one choice of one request.

Knows bytes and text. Refuses to know who asked, how tokens are made, and why generation ended.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from santacoder_router.core.plan import TokenLogprobs
from santacoder_router.text.stop_strings import StopScanner, StopStrings

Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class TokenBytes(Protocol):
    """What turns an id into the bytes it stands for; `Tokenizer` is one."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one id, special tokens as their spelling."""
        ...

    def joined_bytes(self, token_ids: Sequence[int]) -> bytes:
        """The bytes of ids, one after the other."""
        ...


class Utf8Stream:
    """Bytes in pieces to text in pieces: joined, `bytes.decode("utf-8", errors="replace")` of all.

    A character is held back until its last byte is there; bytes that can be no character become
    U+FFFD as soon as that is certain.
    """

    def __init__(self) -> None:
        self._decoder = Utf8Decoder(errors="replace")

    def push(self, data: bytes) -> str:
        """The characters that are whole with these bytes."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What was held back, as U+FFFD, for nothing more will come."""
        return self._decoder.decode(b"", final=True)


class Piece(NamedTuple):
    """What a push made known. All pieces of a choice joined are its whole answer.

    `token_ids` are the ids kept, at once, whether or not their text is held back; `logprobs` has
    one entry an id, or none at all. `matched_stop` is set in the piece that ends the choice by a
    stop string: the text ends before the match, the ids with the one that completed it.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    matched_stop: str | None = None


class ChoiceText:
    """The text of one choice while it grows.

    Call `push` with each batch of accepted ids, in order. If a piece has `matched_stop`, the choice
    is over: cancel the sequence; every later `push` gives an empty piece. When the sequence ends
    by itself call `finish` once for what was held back; it may still complete a stop string.
    How ids are cut into batches changes nothing in the joined result.
    """

    def __init__(self, tokens: TokenBytes, stop: StopStrings) -> None:
        self._tokens = tokens
        self._characters = Utf8Stream()
        self._scanner = StopScanner(stop)
        self._may_stop = bool(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._scanner.matched is not None

    def push(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs] = ()) -> Piece:
        """Take accepted ids and, if asked for, as many log probabilities."""
        if not self._may_stop:
            # All are kept, so there is no need to look at them one by one.
            whole = self._characters.push(self._tokens.joined_bytes(token_ids))
            return Piece(text=whole, token_ids=tuple(token_ids), logprobs=tuple(logprobs))
        text: list[str] = []
        kept = 0
        for token_id in token_ids:
            if self.stopped:
                break
            kept += 1
            characters = self._characters.push(self._tokens.token_bytes(token_id))
            text.append(self._scanner.push(characters))
        return Piece(
            text="".join(text),
            token_ids=tuple(token_ids[:kept]),
            logprobs=tuple(logprobs[:kept]),
            matched_stop=self._scanner.matched if kept else None,
        )

    def finish(self) -> Piece:
        """Let go of what was held back. Empty if a stop string was met before."""
        if self.stopped:
            return Piece()
        text = self._scanner.push(self._characters.finish())
        if not self.stopped:
            text += self._scanner.finish()
        return Piece(text=text, matched_stop=self._scanner.matched)
