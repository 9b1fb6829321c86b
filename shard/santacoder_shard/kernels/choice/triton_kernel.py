"""Ends a step on the GPU: the likeliest id of each row, and the slot moved on by the chosen id.

Ties go to the lowest id. A row that did not run reports MASKED_ID, one whose logits are not finite
NON_FINITE_ID; both are no ids.
"""

from __future__ import annotations

import triton
import triton.language as tl

NON_FINITE_ID = -1
MASKED_ID = -2
_NON_FINITE = tl.constexpr(NON_FINITE_ID)
_MASKED = tl.constexpr(MASKED_ID)
_NO_ID = tl.constexpr(2147483647)


@triton.jit
def likeliest_kernel(
    logits,  # float32 [rows, width]
    best_values,  # out: float32 [rows, parts]
    best_ids,  # out: int32 [rows, parts], NON_FINITE_ID where a logit is not finite
    token_count,
    width,
    BLOCK: tl.constexpr,
):
    """A program a row and a part of BLOCK ids."""
    row, part = tl.program_id(0), tl.program_id(1)
    token = part * BLOCK + tl.arange(0, BLOCK)
    exists = token < token_count
    value = tl.load(logits + row.to(tl.int64) * width + token, mask=exists, other=0.0)
    is_finite = tl.abs(value) < float("inf")
    broken = tl.max(tl.where(exists & (is_finite == 0), 1, 0), 0)
    candidate = tl.where(exists & is_finite, value, -float("inf"))
    best = tl.max(candidate, 0)
    best_id = tl.min(tl.where(exists & (candidate == best), token, _NO_ID), 0)
    place = row * tl.num_programs(1) + part
    tl.store(best_values + place, best)
    tl.store(best_ids + place, tl.where(broken > 0, _NON_FINITE, best_id))


@triton.jit
def advance_kernel(
    best_values,
    best_ids,
    forced_ids,  # int32 [rows]: ids chosen elsewhere, below 0 where the likeliest is wanted
    sample_rows,  # int32 [rows]: which row of the step, below 0: none
    row_slots,  # int32 [step rows]
    positions,  # int32 [step rows], below 0: the row did not run
    slot_tokens,  # int32 [slots], and so the next three
    slot_positions,
    slot_ended,
    slot_remaining,  # tokens until the sequence is long enough
    end_ids,  # int32 [slots, END_COUNT]: ids that end the sequence, -1 where fewer
    out_ids,  # out: int32 [rows]
    part_count,
    END_COUNT: tl.constexpr,
    PARTS: tl.constexpr,
):
    """A program a row that samples."""
    row = tl.program_id(0)
    part = tl.arange(0, PARTS)
    inside = part < part_count
    value = tl.load(best_values + row * part_count + part, mask=inside, other=-float("inf"))
    candidate = tl.load(best_ids + row * part_count + part, mask=inside, other=_NO_ID)
    broken = tl.min(candidate, 0) < 0
    best = tl.max(value, 0)
    token = tl.min(tl.where(value == best, candidate, _NO_ID), 0)
    forced = tl.load(forced_ids + row)
    token = tl.where(forced >= 0, forced, token)
    step_row = tl.load(sample_rows + row)
    ran = step_row >= 0
    step_row = tl.maximum(step_row, 0)
    position = tl.load(positions + step_row)
    ran = ran & (position >= 0)
    slot = tl.maximum(tl.load(row_slots + step_row), 0)
    remaining = tl.load(slot_remaining + slot) - 1
    ends = tl.load(end_ids + slot * END_COUNT + tl.arange(0, END_COUNT))
    ended = broken | (remaining <= 0) | (tl.max(tl.where(ends == token, 1, 0), 0) > 0)
    tl.store(slot_tokens + slot, token, mask=ran)
    tl.store(slot_positions + slot, position + 1, mask=ran)
    tl.store(slot_remaining + slot, remaining, mask=ran)
    tl.store(slot_ended + slot, ended.to(tl.int32), mask=ran)
    token = tl.where(broken, _NON_FINITE, token)
    tl.store(out_ids + row, tl.where(ran, token, _MASKED))
