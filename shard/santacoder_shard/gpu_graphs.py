"""A step's kernels as CUDA graphs: captured once a size, replayed with whatever the buffers hold.

The most frequent kind of step is one graph. For all others there are three kinds, each by its own
size, so that they add up instead of multiplying: the layers by rows, for single rows and for
prompts; the head and the choice by how many rows sample. A choice does no more than the rows of its
step ask for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

import torch

from santacoder_shard.gpu_buffers import StepBuffers, StepRows
from santacoder_shard.gpu_model import GpuModel
from santacoder_shard.kernels.sampling.launch import Sampling

SMALLEST_CHUNK_ROWS = 16
# From here on chunks of prompts come in equal steps: rows that are none take time, too.
CHUNK_ROWS_STEP = 128


def sizes_up_to(limit: int, smallest: int = 1) -> tuple[int, ...]:
    """Powers of two from `smallest` below `limit`, and `limit` itself."""
    sizes = []
    size = smallest
    while size < limit:
        sizes.append(size)
        size *= 2
    return (*sizes, limit)


def chunk_sizes_up_to(limit: int) -> tuple[int, ...]:
    """Powers of two up to CHUNK_ROWS_STEP, then its multiples below `limit`, and `limit` itself."""
    powers = sizes_up_to(min(limit, CHUNK_ROWS_STEP), SMALLEST_CHUNK_ROWS)
    multiples = range(2 * CHUNK_ROWS_STEP, limit, CHUNK_ROWS_STEP)
    return tuple(sorted({*powers, *multiples, limit}))


class StepGraphs:
    """Captures everything when made, on the current stream, smallest first; then only replays."""

    def __init__(self, model: GpuModel, buffers: StepBuffers, row_limit: int) -> None:
        self._model, self._buffers = model, buffers
        self._pool = torch.cuda.graph_pool_handle()
        slot_count = len(buffers.slots.tokens)
        self._row_counts = sizes_up_to(min(slot_count, row_limit))
        self._chunk_counts = chunk_sizes_up_to(row_limit)
        # No slot: every row is none, so that nothing is read or written but these buffers.
        buffers.words.fill_(-1)
        buffers.sample_rows.fill_(-1)
        self._steps = {n: self._capture(self._step, n) for n in self._row_counts}
        self._singles = {n: self._capture(self._single_rows, n) for n in self._row_counts}
        self._heads = {n: self._capture(self._head, n) for n in self._row_counts}
        self._choices = {n: self._capture(self._choose, n) for n in self._row_counts}
        self._chunks = {n: self._capture(self._chunk_rows, n) for n in self._chunk_counts}
        self._samplings = {
            sampling: {
                n: self._capture(partial(self._sample, sampling), n) for n in self._row_counts
            }
            for sampling in (Sampling.DRAW, Sampling.FILTER, Sampling.SURPRISE)
        }

    @property
    def captured_count(self) -> int:
        """How many graphs there are."""
        by_row_count = 4 + len(self._samplings)
        return by_row_count * len(self._row_counts) + len(self._chunk_counts)

    def row_size(self, count: int) -> int:
        """The size that steps of `count` single rows, or heads of as many, are run at."""
        return _size_for(self._row_counts, count)

    def chunk_size(self, count: int) -> int:
        """The size that steps of `count` rows of prompts are run at."""
        return _size_for(self._chunk_counts, count)

    def step(self, size: int) -> None:
        """A whole step of the single rows in `words`, all of which sample their likeliest id."""
        self._steps[size].replay()

    def body(self, size: int, is_decode: bool) -> None:
        """The layers, for the rows in `words`; `is_decode`: single rows, each of its own slot."""
        (self._singles if is_decode else self._chunks)[size].replay()

    def head(self, size: int) -> None:
        """Logits of the rows in `sample_rows`."""
        self._heads[size].replay()

    def choose(self, size: int, sampling: Sampling) -> None:
        """Ids of the rows in `sample_rows`, none of which needs more; and their slots moved on."""
        choices = self._samplings[sampling] if sampling else self._choices
        choices[size].replay()

    def _step(self, size: int) -> None:
        self._single_rows(size)
        self._head(size)
        self._choose(size)

    def _single_rows(self, size: int) -> None:
        self._model.body(StepRows.view(self._buffers.words, size), is_decode=True)

    def _chunk_rows(self, size: int) -> None:
        self._model.body(StepRows.view(self._buffers.words, size), is_decode=False)

    def _head(self, size: int) -> None:
        self._model.head(self._buffers.sample_rows[:size])

    def _choose(self, size: int) -> None:
        self._sample(Sampling.LIKELIEST, size)

    def _sample(self, sampling: Sampling, size: int) -> None:
        self._model.choose(self._buffers.sample_rows[:size], sampling)

    def _capture(self, run: Callable[[int], None], size: int) -> torch.cuda.CUDAGraph:
        # Once outside, so that kernels are compiled and loaded before the capture.
        run(size)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        # What other threads do, as NCCL's watchdog, is no part of it and must not spoil it.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, stream, capture_error_mode=mode):
            run(size)
        return graph


def _size_for(sizes: Sequence[int], count: int) -> int:
    return sizes[bisect_left(sizes, count)]
