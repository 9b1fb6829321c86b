"""New text of a choice that waits for its reader: pieces join, so that a slow one costs no memory.

Knows the wire's messages and the tokenizer's spelling of an id; no events, no time.
"""

from __future__ import annotations

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import TokenLogprobs
from santacoder_router.text.detokenizer import Piece
from santacoder_router.text.tokenizer import Tokenizer

TOKEN_BYTES = 8
"""An id and its text."""
LOGPROB_BYTES = 24
"""An id, its text and its log probability."""


class PendingDelta:
    """What a choice has said since its reader last looked."""

    def __init__(
        self, index: int, tokenizer: Tokenizer, text: str, received_count: int = 0
    ) -> None:
        """Begins with a text; the reader has the first `received_count` characters of all text."""
        self._index = index
        self._tokenizer = tokenizer
        self._received_count = received_count
        if received_count:
            text = self._after_received(text)
        self._texts = [text] if text else []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []

    def add(self, piece: Piece) -> None:
        """Joins a piece to what waits."""
        text = self._after_received(piece.text) if self._received_count else piece.text
        if text:
            self._texts.append(text)
        self._token_ids += piece.token_ids
        self._logprobs += piece.logprobs

    @property
    def byte_count(self) -> int:
        """About what waits takes on the wire."""
        count = len(self._token_ids) * TOKEN_BYTES
        if self._logprobs:
            count += len(self._logprobs) * (1 + len(self._logprobs[0].top)) * LOGPROB_BYTES
        return count

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._texts or self._token_ids)

    def move_to(self, message: inference_pb2.Delta | inference_pb2.Choice) -> None:
        """Puts all that waits into a new message."""
        message.index = self._index
        message.text = "".join(self._texts)
        message.token_ids.extend(self._token_ids)
        for token_id, logprobs in zip(self._token_ids, self._logprobs, strict=False):
            position = message.logprobs.add()
            self._put_token(token_id, logprobs.chosen, position.chosen)
            for top_id, logprob in logprobs.top:
                self._put_token(top_id, logprob, position.top.add())
        self._texts, self._token_ids, self._logprobs = [], [], []

    def _after_received(self, text: str) -> str:
        count = min(len(text), self._received_count)
        self._received_count -= count
        return text[count:]

    def _put_token(
        self, token_id: int, logprob: float, message: inference_pb2.TokenLogprob
    ) -> None:
        message.token_id = token_id
        message.text = self._tokenizer.detokenize([token_id])
        message.logprob = logprob
