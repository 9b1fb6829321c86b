"""The sampler of a step, ready to launch: what lies between its kernels, and which of them run."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from santacoder_shard.kernels.sampling import layout
from santacoder_shard.kernels.sampling.kept import triton_kernel as kept
from santacoder_shard.kernels.sampling.selection import triton_kernel as selection
from santacoder_shard.kernels.sampling.triton_kernel import (
    adjust_kernel,
    draw_kernel,
    weigh_kernel,
)
from santacoder_shard.logits_processors import weight_bits

CANDIDATE_CHUNK = 1024
# Fused multiply and add would round once where the specification rounds twice.
_ROUNDED: dict[str, Any] = {"enable_fp_fusion": False}


class Sampling(enum.IntEnum):
    """What the rows of a step need; each also does what those before it do."""

    LIKELIEST = 0
    DRAW = 1
    """Bias, penalties, bans and temperature."""
    FILTER = 2
    """top_k, top_p and min_p too."""
    SURPRISE = 3
    """And typical_p."""


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """How each slot samples: what the device reads, made once."""

    words: Tensor
    """int64 [slots, columns]: see `layout.py`."""
    histories: Tensor
    """int32 [slots, width]: what a slot's text holds of each id; kept for penalties alone."""

    @classmethod
    def empty(cls, slot_count: int, width: int, device: torch.device) -> SlotOptions:
        """Room for so many slots; `width` is the ids that exist, rounded up to whole parts."""
        columns = layout.OPTION_COLUMN_COUNT
        return cls(
            words=torch.zeros(slot_count, columns, dtype=torch.int64, device=device),
            histories=torch.zeros(slot_count, width, dtype=torch.int32, device=device),
        )


@dataclass(frozen=True, slots=True)
class SampledStep:
    """The step's own tensors that the sampler reads, and the ids that it writes."""

    logits: Tensor
    """float32 [rows, vocabulary]."""
    best_ids: Tensor
    """int32 [rows, parts], below 0 where a logit of the part is not finite."""
    row_slots: Tensor
    positions: Tensor
    end_ids: Tensor
    forced_ids: Tensor


class Sampler:
    """Chooses ids on the device. Allocates when made, then only launches, so it can be captured.

    Beside the slots' histories it holds 12 bytes a row and id: 150 MB at 256 rows of 49,152.
    """

    def __init__(
        self, options: SlotOptions, step: SampledStep, token_count: int, block: int
    ) -> None:
        rows, parts = step.best_ids.shape
        device, width = step.logits.device, options.histories.shape[1]

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self._options, self._step = options, step
        self._token_count, self._part_count, self._width = token_count, parts, width
        self._block: dict[str, Any] = {"BLOCK": block}
        self._parts: dict[str, Any] = {"PARTS": triton.next_power_of_2(parts), **self._block}
        self._bits: dict[str, Any] = {"WEIGHT_BITS": weight_bits(token_count)}
        self._bins_per_part = triton.next_power_of_2(-(-layout.BIN_COUNT // parts))
        self._chosen = zeros(rows, dtype=torch.int32)
        self._drawing = zeros(rows, dtype=torch.int32)
        self._weights = zeros(rows, width)
        self._candidates = zeros(rows, width, dtype=torch.int32)
        self._part_values = zeros(rows, parts, dtype=torch.float64)
        self._part_ids = zeros(rows, parts, dtype=torch.int32)
        self.part_sums = zeros(rows, parts)
        """What the ids of each part weigh that a row's last draw was from."""
        self._bin_counts = zeros(rows, layout.BIN_COUNT, dtype=torch.int32)
        self._bin_sums = zeros(rows, layout.BIN_COUNT)
        self._state = zeros(rows, layout.STATE_COLUMN_COUNT)

    def __call__(self, sample_rows: Tensor, sampling: Sampling) -> None:
        """Write the ids of the rows that `sample_rows` int32 [Q] names, -1 for the likeliest."""
        row_count = len(sample_rows)
        self._adjust(sample_rows)
        self._weigh(row_count, sampling >= Sampling.FILTER)
        if sampling >= Sampling.FILTER:
            self._filter(row_count, selection.BY_COUNT)
            self._filter(row_count, selection.BY_MASS)
            self._sum_kept(row_count, by_surprise=False)
        if sampling >= Sampling.SURPRISE:
            self._measure_surprise(row_count)
            self._filter(row_count, selection.BY_SURPRISE)
            self._sum_kept(row_count, by_surprise=True)
        self._draw(row_count, sampling >= Sampling.SURPRISE)

    def _adjust(self, sample_rows: Tensor) -> None:
        step, options = self._step, self._options
        adjust_kernel[(len(sample_rows), self._part_count)](
            step.logits,
            step.best_ids,
            sample_rows,
            step.row_slots,
            step.positions,
            options.words,
            step.end_ids,
            options.histories,
            self._chosen,
            self._drawing,
            self._weights,
            self._part_values,
            self._part_ids,
            self._bin_counts,
            self._bin_sums,
            self._state,
            self._token_count,
            step.logits.shape[1],
            END_COUNT=step.end_ids.shape[1],
            BINS_PER_PART=self._bins_per_part,
            **self._bits,
            **self._parts,
            num_warps=8,
            **_ROUNDED,
        )

    def _weigh(self, row_count: int, filters: bool) -> None:
        weigh_kernel[(row_count, self._part_count)](
            self._drawing,
            self._options.words,
            self._weights,
            self._part_values,
            self.part_sums,
            self._bin_counts,
            self._bin_sums,
            self._state,
            FILTERS=filters,
            **self._bits,
            **self._parts,
            num_warps=8,
            **_ROUNDED,
        )

    def _filter(self, row_count: int, by: Any) -> None:
        shared = (self._drawing, self._options.words)
        bins = (self._bin_counts, self._bin_sums)
        wanted: dict[str, Any] = {"FILTER": by, **_ROUNDED}
        selection.bound_kernel[(row_count,)](*shared, *bins, self._state, **wanted, num_warps=8)
        gathered = (*shared, self._weights, self._state, self._candidates)
        selection.collect_kernel[(row_count, self._part_count)](
            *gathered, **self._bits, **self._block, **wanted, num_warps=8
        )
        selection.resolve_kernel[(row_count,)](
            *gathered,
            self._width,
            ID_BITS=self._token_count.bit_length(),
            CHUNK=CANDIDATE_CHUNK,
            **self._bits,
            **wanted,
            num_warps=4,
        )

    def _sum_kept(self, row_count: int, by_surprise: bool) -> None:
        self._by_parts(
            kept.sum_kept_kernel, row_count, self._state, self.part_sums, BY_SURPRISE=by_surprise
        )

    def _measure_surprise(self, row_count: int) -> None:
        bins = self._bins_per_part
        rest = (self._bin_sums, self._state)
        self._by_parts(kept.entropy_kernel, row_count, *rest, BINS_PER_PART=bins)
        self._by_parts(kept.deviate_kernel, row_count, *rest)

    def _by_parts(self, kernel: Any, row_count: int, *tensors: Tensor, **options: Any) -> None:
        launch: Callable[..., None] = kernel[(row_count, self._part_count)]
        shared = (self._drawing, self._options.words, self._weights)
        launch(*shared, *tensors, **self._block, **options, num_warps=8, **_ROUNDED)

    def _draw(self, row_count: int, by_surprise: bool) -> None:
        draw_kernel[(row_count,)](
            self._chosen,
            self._drawing,
            self._options.words,
            self._weights,
            self._part_values,
            self._part_ids,
            self.part_sums,
            self._state,
            self._options.histories,
            self._step.forced_ids,
            self._part_count,
            BY_SURPRISE=by_surprise,
            **self._parts,
            num_warps=8,
            **_ROUNDED,
        )
