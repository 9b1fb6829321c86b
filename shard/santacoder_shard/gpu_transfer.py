"""Small copies between host and device that nobody waits for. Knows no plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(values: Sequence[int] | NDArray[numpy.generic], like: Tensor) -> Tensor:
    """`values`, as int64 if they have no type, on the device of `like`."""
    host = torch.from_numpy(numpy.asarray(values, dtype=getattr(values, "dtype", numpy.int64)))
    # Only what is pinned can be copied behind the host's back; without a GPU nothing can be pinned.
    return host.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else host


class PinnedRing:
    """Pinned places of so many int32, used in turn: copies of every step need no memory made."""

    def __init__(self, word_count: int, place_count: int = 16) -> None:
        self._words = torch.empty(place_count, word_count, dtype=torch.int32, pin_memory=True)
        self._arrays = [place.numpy() for place in self._words]
        self._copied = [
            torch.cuda.Event()  # type: ignore[no-untyped-call]
            for _ in range(place_count)
        ]
        self._next = 0

    def copy(self, values: NDArray[numpy.int32], target: Tensor) -> None:
        """Queue the copy of `values` [N] to `target` int32 [N]; N at most `word_count`."""
        place = self._next
        self._next = (place + 1) % len(self._copied)
        # Many copies ago: nearly always done.
        self._copied[place].synchronize()
        self._arrays[place][: values.size] = values
        target.copy_(self._words[place, : values.size], non_blocking=True)
        self._copied[place].record()


class IdRing:
    """Where the ids of steps in flight arrive on the host, one place a step, used in turn."""

    def __init__(self, id_count: int, place_count: int, source: Tensor) -> None:
        self._source = source
        self._arrived = torch.empty(place_count, id_count, dtype=torch.int32, pin_memory=True)
        self._events = [
            torch.cuda.Event()  # type: ignore[no-untyped-call]
            for _ in range(place_count)
        ]
        self._next = 0

    def next_place(self) -> int:
        """The place of the next step; what was there must have been read."""
        place = self._next
        self._next = (place + 1) % len(self._events)
        return place

    def fetch(self, place: int) -> None:
        """Queue the copy of the ids that the step before it leaves."""
        self._arrived[place].copy_(self._source, non_blocking=True)
        self._events[place].record()

    def wait(self, place: int) -> None:
        """Until the ids are there."""
        self._events[place].synchronize()

    def is_ready(self, place: int) -> bool:
        """Whether the ids are there."""
        return bool(self._events[place].query())  # type: ignore[no-untyped-call]

    def ids(self, place: int) -> list[int]:
        """The ids that have arrived."""
        ids: list[int] = self._arrived[place].tolist()
        return ids
