"""Rows on the GPU to draw from: fresh ones come when they are there, and no step waits for them."""

from __future__ import annotations

from multiprocessing.queues import Queue
from queue import Empty

import torch
from rows import ROW_TOKENS, Pack

MOST_PACKS_A_REFRESH = 4


class Reservoir:
    """The last `capacity` rows that were made, in a ring."""

    def __init__(self, packs: Queue[Pack], capacity: int, device: str) -> None:
        self._packs = packs
        self._rows = torch.zeros(capacity, 5, ROW_TOKENS, dtype=torch.int16, device=device)
        self.fresh_count = 0

    def wait_for(self, row_count: int) -> None:
        """Return once so many rows are in."""
        while self.fresh_count < row_count:
            self._put(self._packs.get())

    def refresh(self) -> None:
        """Take in what has been made since, up to a few packs."""
        for _ in range(MOST_PACKS_A_REFRESH):
            try:
                self._put(self._packs.get_nowait())
            except Empty:
                return

    def draw(self, row_count: int) -> torch.Tensor:
        """So many of the rows by chance [row_count, 5, ROW_TOKENS]."""
        filled = min(self.fresh_count, len(self._rows))
        return self._rows[torch.randint(filled, (row_count,), device=self._rows.device)]

    def _put(self, pack: Pack) -> None:
        rows = torch.from_numpy(pack)
        begin = self.fresh_count % len(self._rows)
        first = rows[: len(self._rows) - begin]
        self._rows[begin : begin + len(first)] = first.to(self._rows.device)
        rest = rows[len(first) :]
        self._rows[: len(rest)] = rest.to(self._rows.device)
        self.fresh_count += len(rows)
