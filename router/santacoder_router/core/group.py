"""What the router holds of a shard group's life: blocks, slots, residencies and plans in flight.

All of it ends with the group, and a new one begins with a new `GroupState`. Makes no decisions.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from santacoder_router.core.blocks import BlockPool
from santacoder_router.core.plan import Retire, StepResult
from santacoder_router.core.sequence import Residency, Sequence
from santacoder_router.core.settings import SchedulerConfig


class PlannedRow(NamedTuple):
    """A row as it was planned: how many tokens of whom in the first step, and whether it samples.

    In further steps a row that samples runs one token each.
    """

    residency: Residency
    token_count: int
    is_sampled: bool


@dataclass(slots=True)
class PlanInFlight:
    """A plan sent and not yet answered in full."""

    number: int
    rows: list[PlannedRow]
    num_steps: int
    # Every row is one token that samples: what it takes measures a decode step.
    is_decode: bool
    steps_done: int = 0

    def expects(self, result: StepResult) -> bool:
        """Whether that is what comes next of this plan."""
        return (
            result.plan_number == self.number
            and result.first_step == self.steps_done
            and len(result.rows) == len(self.rows)
        )


class GroupState:
    """The router's side of one life of a shard group."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.block_size = config.block_size
        self.pool = BlockPool(config.block_count)
        # In order: the first is the last to be preempted.
        self.running: list[Residency] = []
        # Residencies that ended since the last plan.
        self.retires: list[Retire] = []
        # Whether one of them still runs on the shards. If not, they wait for the next plan with
        # rows: a plan to retire alone would stand in the way of the next request.
        self.is_retire_urgent = False
        self.in_flight: deque[PlanInFlight] = deque()
        self.next_plan_number = 1
        self._free_slots = list(range(config.sequence_limit - 1, -1, -1))

    @property
    def has_free_slot(self) -> bool:
        """Whether another sequence may be admitted."""
        return bool(self._free_slots)

    def enter(self, sequence: Sequence, blocks: list[int], computed_length: int) -> Residency:
        """Gives a sequence a slot, and for its own the `blocks` that its known tokens need."""
        sequence.generation += 1
        residency = Residency(
            sequence=sequence,
            generation=sequence.generation,
            slot=self._free_slots.pop(),
            admitted_length=sequence.token_count,
            blocks=blocks,
            planned_computed=computed_length,
        )
        sequence.residency = residency
        insort(self.running, residency, key=_order)
        return residency

    def missing_blocks(self, residency: Residency, num_tokens: int) -> int:
        """Blocks a residency lacks to run `num_tokens` past what is planned."""
        needed = -(-(residency.planned_computed + num_tokens) // self.block_size)
        return max(0, needed - len(residency.blocks))

    def register_blocks(self, residency: Residency, written_count: int) -> None:
        """Lets the blocks that the first `written_count` tokens fill be found in the prefix cache.

        The tokens' ids must be known, and plans sent or about to be sent must write their K and V.
        """
        full_count = written_count // self.block_size
        for index in range(residency.registered_count, full_count):
            prefix = residency.sequence.prefix(index + 1, self.block_size)
            self.pool.register(prefix, residency.blocks[index])
        residency.registered_count = max(full_count, residency.registered_count)

    def register_output(self, residency: Residency, is_matched: bool) -> None:
        """The same for output that has come back; `is_matched` if an id ended the text."""
        # The last id sampled has no K and V yet; an id that ended the text is not among the tokens.
        written_count = residency.sequence.token_count - (0 if is_matched else 1)
        if written_count // self.block_size > residency.registered_count:
            self.register_blocks(residency, written_count)

    def at_work(self) -> list[Residency]:
        """Whoever is in a slot, or has just left it and is in a plan that is out, in order."""
        rows = (row for plan in self.in_flight for row in plan.rows)
        latest = {row.residency.sequence: row.residency for row in rows}
        latest |= {residency.sequence: residency for residency in self.running}
        live = (residency for residency in latest.values() if not residency.sequence.is_ended)
        return sorted(live, key=_order)

    def leave_all(self) -> list[Sequence]:
        """Takes everybody's slot and blocks back; who they were."""
        residencies = list(self.running)
        for residency in residencies:
            self.leave(residency)
        return [residency.sequence for residency in residencies]

    def leave(self, residency: Residency, has_ended: bool = False) -> None:
        """Takes slot and blocks back at once; the next plan says so to the shards.

        `has_ended`: the shards have ended the sequence themselves.

        Plans in flight may still write the blocks. That is harmless: the shards work in order, so
        whatever the next owner writes comes later, and nothing is cached before it is written.
        """
        residency.is_live = False
        residency.sequence.residency = None
        self.running.remove(residency)
        self.pool.release(residency.blocks)
        self._free_slots.append(residency.slot)
        self.is_retire_urgent |= not has_ended
        self.retires.append(Retire(residency.sequence.request.request_id, residency.generation))


def _order(residency: Residency) -> tuple[float, int]:
    return residency.sequence.order
