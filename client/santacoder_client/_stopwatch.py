"""When the pieces of an answer came, for `--verbose`."""

from __future__ import annotations

import time

from santacoder_client.types import Piece


class Stopwatch:
    """When pieces came, by this machine's clock."""

    def __init__(self) -> None:
        self._started = self._first = self._last = time.perf_counter()
        self._first_count = self._count = 0

    def see(self, piece: Piece) -> None:
        """A piece has come."""
        if not piece.token_ids:
            return
        self._last = time.perf_counter()
        if not self._count:
            self._first, self._first_count = self._last, len(piece.token_ids)
        self._count += len(piece.token_ids)

    def summary(self) -> str:
        """In one line."""
        text = f"first token {1000 * (self._first - self._started):.1f} ms, {self._count} tokens"
        if self._last > self._first:
            speed = (self._count - self._first_count) / (self._last - self._first)
            text += f", {speed:.1f} tokens/s"
        return text
