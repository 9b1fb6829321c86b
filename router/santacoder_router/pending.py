"""New text of a choice that waits for its reader: pieces join, so that a slow one costs no memory.

Knows the wire's messages and the tokenizer's spelling of an id; no events, no time.
"""

from __future__ import annotations

from collections.abc import Sequence

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import TokenLogprobs
from santacoder_router.text.detokenizer import Piece
from santacoder_router.text.tokenizer import Tokenizer


class PendingDelta:
    """What a choice has said since its reader last looked."""

    def __init__(self, index: int, tokenizer: Tokenizer, echo: str) -> None:
        self._index = index
        self._tokenizer = tokenizer
        self._texts = [echo] if echo else []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []

    def add(self, piece: Piece) -> None:
        """Joins a piece to what waits."""
        if piece.text:
            self._texts.append(piece.text)
        self._token_ids += piece.token_ids
        self._logprobs += piece.logprobs

    def take(self) -> inference_pb2.Delta | None:
        """All that waits as one message; None if nothing does."""
        if not self._texts and not self._token_ids:
            return None
        delta = inference_pb2.Delta(
            index=self._index,
            text="".join(self._texts),
            token_ids=self._token_ids,
            logprobs=[
                self._position(token_id, logprobs)
                for token_id, logprobs in zip(self._token_ids, self._logprobs, strict=False)
            ],
        )
        self._texts, self._token_ids, self._logprobs = [], [], []
        return delta

    def _position(self, token_id: int, logprobs: TokenLogprobs) -> inference_pb2.PositionLogprobs:
        return inference_pb2.PositionLogprobs(
            chosen=self._token(token_id, logprobs.chosen), top=self._tokens(logprobs.top)
        )

    def _tokens(self, pairs: Sequence[tuple[int, float]]) -> list[inference_pb2.TokenLogprob]:
        return [self._token(token_id, logprob) for token_id, logprob in pairs]

    def _token(self, token_id: int, logprob: float) -> inference_pb2.TokenLogprob:
        text = self._tokenizer.detokenize([token_id])
        return inference_pb2.TokenLogprob(token_id=token_id, text=text, logprob=logprob)
