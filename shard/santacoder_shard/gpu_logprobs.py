"""Log probabilities of a step's ids, made on the device behind the step; nobody waits for them.

As `sampler.token_logprobs`, a few rows at a time so that little memory is needed. A row's report
does not depend on the other rows. The likeliest ids are those of the largest raw logits: two that
differ by less than float64 can tell once they are normalized keep their own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from santacoder_shard.gpu_buffers import StepBuffers
from santacoder_shard.gpu_transfer import to_device
from santacoder_shard.kernels.logprobs.triton_kernel import normalizer_kernel
from santacoder_shard.step import TokenLogprobs

_ROWS_AT_ONCE = 32
_ID_BITS = 32
_ID_MASK = 2**_ID_BITS - 1


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Which sampled row of a step wants a report, and of how many of the likeliest ids."""

    sample_place: int
    top_count: int


@dataclass(frozen=True, slots=True)
class QueuedReports:
    """On the host once the step has ended: float64 chosen [n] and top [n, K], int64 ids [n, K]."""

    requests: Sequence[ReportRequest]
    chosen: Tensor
    top_values: Tensor
    top_ids: Tensor

    def arrived(self) -> dict[int, TokenLogprobs]:
        """The reports by sampled row, when the step has ended."""
        lines = zip(
            self.requests,
            self.chosen.tolist(),
            self.top_ids.tolist(),
            self.top_values.tolist(),
            strict=True,
        )
        return {
            request.sample_place: TokenLogprobs(
                chosen, tuple(zip(ids, values, strict=True))[: request.top_count]
            )
            for request, chosen, ids, values in lines
        }


def queue_reports(buffers: StepBuffers, requests: Sequence[ReportRequest]) -> list[QueuedReports]:
    """Queue the reports on the ids that the step's choice leaves, and their way to the host."""
    groups = [
        requests[first : first + _ROWS_AT_ONCE] for first in range(0, len(requests), _ROWS_AT_ONCE)
    ]
    return [_queue(buffers, group) for group in groups]


def _queue(buffers: StepBuffers, requests: Sequence[ReportRequest]) -> QueuedReports:
    rows = to_device([request.sample_place for request in requests], buffers.logits)
    logits = buffers.logits.index_select(0, rows)[:, : buffers.token_count]
    normalizers = _normalizers(buffers, rows)[:, None]
    # Of a row that did not run or is not finite nobody reads the report.
    ids = buffers.out_ids.index_select(0, rows).clamp_(min=0).long()[:, None]
    count = min(max(request.top_count for request in requests), buffers.token_count)
    top_ids = _largest_ids(logits, count)
    chosen = logits.gather(1, ids).double() - normalizers
    top_values = logits.gather(1, top_ids).double() - normalizers
    return QueuedReports(
        requests,
        chosen.squeeze(1).to("cpu", non_blocking=True),
        top_values.to("cpu", non_blocking=True),
        top_ids.to("cpu", non_blocking=True),
    )


def _normalizers(buffers: StepBuffers, rows: Tensor) -> Tensor:
    part_count = buffers.best_values.shape[1]
    normalizers = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    normalizer_kernel[(len(rows),)](
        buffers.logits,
        buffers.best_values,
        rows,
        normalizers,
        buffers.token_count,
        buffers.logits.shape[1],
        part_count,
        PARTS=triton.next_power_of_2(part_count),
        BLOCK=buffers.choice_block,
        num_warps=8,
    )
    return normalizers


def _largest_ids(logits: Tensor, count: int) -> Tensor:
    """Ids int64 [n, count] of the largest of float32 logits [n, N]; equals: lowest id first."""
    # Bits of float32 in the order of their values, 0.0 and -0.0 alike; no two keys are equal, so
    # that the largest have one order.
    bits = (logits + 0.0).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFF_FFFF)).long()
    ids = torch.arange(logits.shape[1], device=logits.device)
    keys: Tensor = (ordered << _ID_BITS) + (_ID_MASK - ids)
    largest: Tensor = keys.topk(count, dim=1).values & _ID_MASK
    top_ids: Tensor = _ID_MASK - largest
    return top_ids
