"""A plan under construction: rows are added one by one, then it becomes a frozen `StepPlan`.

Knows the bookkeeping of a row, not which rows there should be.
"""

from __future__ import annotations

from santacoder_router.core.group import GroupState, PlanInFlight, PlannedRow
from santacoder_router.core.plan import Admit, BlockCopy, BlockGrant, Row, StepPlan
from santacoder_router.core.sequence import Residency, Sequence


class Draft:
    """Collects one plan; adding a row moves the residency's planned position at once."""

    def __init__(self, token_budget: int) -> None:
        self.tokens_left = token_budget
        self.rows: list[PlannedRow] = []
        self.admits: list[Admit] = []
        self.copies: list[BlockCopy] = []
        # Sequences that lost their slot to this plan, and sequences in a plan for the first time,
        # these with the number of their cached tokens.
        self.preempted: list[Sequence] = []
        self.started: list[tuple[Sequence, int]] = []
        # Blocks this plan's rows fill. Rows may read them; copies may not, as they run before rows.
        self.filled_blocks: set[int] = set()
        # Every row so far samples, so that the plan may go on for further steps.
        self.is_lease_possible = True
        # Every row so far runs one token too: its time is that of a decode step.
        self.is_decode = True

    def add_decode_row(self, residency: Residency) -> None:
        """Runs the token sampled last, whether or not its id has come back yet, and samples."""
        residency.planned_computed += 1
        residency.pending_samples += 1
        self.tokens_left -= 1
        self.rows.append(PlannedRow(residency, 1, True))

    def add_chunk_row(self, residency: Residency, token_count: int) -> None:
        """Runs the next `token_count` known tokens, and samples if they are the last."""
        is_sampled = token_count >= residency.prefill_left
        residency.planned_computed += token_count
        if is_sampled:
            residency.pending_samples += 1
        else:
            self.is_lease_possible = False
        if token_count > 1 or not is_sampled:
            self.is_decode = False
        self.tokens_left -= token_count
        self.rows.append(PlannedRow(residency, token_count, is_sampled))

    def send(self, group: GroupState, num_steps: int) -> StepPlan:
        """The finished plan, numbered and counted among those in flight."""
        number = group.next_plan_number
        group.next_plan_number += 1
        group.in_flight.append(PlanInFlight(number, self.rows, num_steps, self.is_decode))
        retires, group.retires = group.retires, []
        group.is_retire_urgent = False
        block_size = group.block_size
        grants: list[BlockGrant] = []
        rows: list[Row] = []
        for residency, token_count, is_sampled in self.rows:
            if residency.granted_count < len(residency.blocks):
                grants.append(_grant(residency))
            rows.append(_row(residency, token_count, is_sampled, block_size))
        return StepPlan(
            number=number,
            retires=tuple(retires),
            admits=tuple(self.admits),
            grants=tuple(grants),
            copies=tuple(self.copies),
            rows=tuple(rows),
            num_steps=num_steps,
        )


def _grant(residency: Residency) -> BlockGrant:
    first_index = residency.granted_count
    residency.granted_count = len(residency.blocks)
    return BlockGrant(residency.slot, first_index, tuple(residency.blocks[first_index:]))


def _row(residency: Residency, token_count: int, is_sampled: bool, block_size: int) -> Row:
    row = residency.row
    kv_token_limit = len(residency.blocks) * block_size
    if (
        row is None
        or row.kv_token_limit != kv_token_limit
        or row.token_count != token_count
        or row.sample != is_sampled
    ):
        request_id = residency.sequence.request.request_id
        row = Row(request_id, residency.slot, token_count, is_sampled, kv_token_limit)
        residency.row = row
    return row
