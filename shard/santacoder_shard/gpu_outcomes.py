"""What launched steps have sampled, gathered by row until it is told. Moves the slots on. Pure.

Telling costs the router time by the row, whether a row has one id or eight: steps of many rows are
told several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from santacoder_shard.gpu_rows import PlannedRow
from santacoder_shard.kernels.choice.triton_kernel import NON_FINITE_ID
from santacoder_shard.step import RowOutcome, RowState, StepOutcome, TokenLogprobs

# About what a row of an answer costs the router: its event, its text and its client's message.
TELLING_SECONDS_PER_ROW = 100e-6
Emit = Callable[[StepOutcome], None]


@dataclass(slots=True)
class PlanOutcomes:
    """Of consecutive steps of one plan that have ended and were not told yet."""

    plan_number: int
    emit: Emit
    row_count: int
    told_at: float
    """When this plan's last report went out, or its first step was launched."""
    next_step: int = 0
    steps_run: int = 0
    seconds: float = 0.0
    token_ids: list[list[int]] = field(default_factory=list)
    states: list[RowState] = field(default_factory=list)
    logprobs: list[list[TokenLogprobs]] = field(default_factory=list)

    def take(
        self,
        rows: Sequence[PlannedRow],
        ids: Sequence[int],
        reports: Mapping[int, TokenLogprobs],
        seconds: float,
    ) -> None:
        """A step has ended: `ids` and `reports` by the places that its rows sample at."""
        if not self.steps_run:
            self.token_ids = [[] for _ in rows]
            self.states = [RowState.MASKED] * len(rows)
            self.logprobs = [[] for _ in rows]
        self.steps_run += 1
        self.seconds += seconds
        for index, row in enumerate(rows):
            state = _advance(row, ids)
            # A row that ended in an earlier step is masked in later ones; its end is what is told.
            if state is RowState.MASKED:
                continue
            self.states[index] = state
            if row.is_sampled and state is not RowState.NON_FINITE:
                self.token_ids[index].append(ids[row.sample_place])
                if row.sample_place in reports:
                    self.logprobs[index].append(reports[row.sample_place])

    def is_due(self, now: float) -> bool:
        """Whether the router has had the time that this report will cost it."""
        return now - self.told_at >= self.row_count * TELLING_SECONDS_PER_ROW

    def tell(self, now: float, final: bool) -> None:
        """Emit what was taken since the last time."""
        rows = tuple(
            RowOutcome(tuple(ids), state, tuple(logprobs))
            for ids, state, logprobs in zip(self.token_ids, self.states, self.logprobs, strict=True)
        )
        first, count, seconds = self.next_step, self.steps_run, self.seconds
        self.next_step, self.steps_run, self.seconds, self.told_at = first + count, 0, 0.0, now
        self.emit(StepOutcome(self.plan_number, first, count, final, rows, seconds))


def _advance(row: PlannedRow, ids: Sequence[int]) -> RowState:
    """Move a row's slot on as the device has moved it; what the row is after the step."""
    slot = row.slot
    if slot is None or slot.ended:
        return RowState.MASKED
    if not row.runs:
        return RowState.KV_LIMIT
    slot.computed_length += row.row.token_count
    if not row.is_sampled:
        return RowState.RUNNING
    token_id = ids[row.sample_place]
    if token_id == NON_FINITE_ID:
        slot.ended = True
        return RowState.NON_FINITE
    return slot.accept(token_id)
