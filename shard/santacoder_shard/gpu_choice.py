"""The end of a step on the GPU: an id of each row that samples, and its slot moved on by it.

Launches kernels over buffers that never move; allocates only when made, so it can be captured.
"""

from __future__ import annotations

import triton
from torch import Tensor

from santacoder_shard.gpu_buffers import StepBuffers
from santacoder_shard.kernels.choice.triton_kernel import advance_kernel, likeliest_kernel
from santacoder_shard.kernels.sampling.launch import SampledStep, Sampler, Sampling


class GpuChoice:
    """Used by one thread, on one stream."""

    def __init__(self, buffers: StepBuffers) -> None:
        self._buffers = buffers
        step = SampledStep(
            logits=buffers.logits,
            best_ids=buffers.best_ids,
            row_slots=buffers.row_slots,
            positions=buffers.positions,
            end_ids=buffers.slots.end_ids,
            forced_ids=buffers.forced_ids,
        )
        self._sampler = Sampler(buffers.options, step, buffers.token_count, buffers.choice_block)

    def __call__(self, sample_rows: Tensor, sampling: Sampling) -> None:
        """Of the rows that `sample_rows` int32 [Q] names; none needs more than `sampling`."""
        buffers = self._buffers
        likeliest_kernel[(len(sample_rows), buffers.best_ids.shape[1])](
            buffers.logits,
            buffers.best_values,
            buffers.best_ids,
            buffers.token_count,
            buffers.logits.shape[1],
            BLOCK=buffers.choice_block,
        )
        if sampling is Sampling.LIKELIEST:
            self._advance(sample_rows, buffers.no_ids)
        else:
            self._sampler(sample_rows, sampling)
            self._advance(sample_rows, buffers.forced_ids)

    def _advance(self, sample_rows: Tensor, forced_ids: Tensor) -> None:
        buffers, slots = self._buffers, self._buffers.slots
        part_count = buffers.best_ids.shape[1]
        advance_kernel[(len(sample_rows),)](
            buffers.best_values,
            buffers.best_ids,
            forced_ids,
            sample_rows,
            buffers.row_slots,
            buffers.positions,
            slots.tokens,
            slots.positions,
            slots.ended,
            slots.remaining,
            slots.end_ids,
            buffers.out_ids,
            part_count,
            END_COUNT=slots.end_ids.shape[1],
            PARTS=triton.next_power_of_2(part_count),
            num_warps=1,
        )
