"""What a load that goes straight at a shard group asks of it: plans, one after the other. Pure.

The plainest batching that keeps a group busy: first come, first admitted; blocks for the longest
answer are set aside at once, so nobody is ever preempted; no prefix is reused. The router does all
that better, and costs something: the difference is what such a load is for.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from santacoder.shard.v1 import shard_pb2

LEASE_US = 2_500
"""How long a newcomer waits at most for the end of the others' lease."""
STEP_DEADLINE_US = 60_000_000
_GOES_ON = (shard_pb2.ROW_STATE_RUNNING, shard_pb2.ROW_STATE_UNSPECIFIED)
_ENDS_BY_ID = (shard_pb2.ROW_STATE_END_OF_TEXT, shard_pb2.ROW_STATE_STOP_ID)


@dataclass(slots=True, eq=False)
class Answer:
    """One request on its way through the group."""

    admit: shard_pb2.Admit
    """All but the slot and the sequence, which the batch gives."""
    blocks: list[int] = field(default_factory=list)
    prefilled_count: int = 0
    left_count: int = 0
    """New tokens still allowed."""
    state: int = shard_pb2.ROW_STATE_UNSPECIFIED
    is_cancelled: bool = False

    @property
    def prompt_count(self) -> int:
        """Tokens of the prompt."""
        return self.admit.prompt_length

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be run."""
        return self.is_cancelled or self.state not in _GOES_ON


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and whom it is about."""

    message: shard_pb2.Plan
    rows: tuple[Answer, ...]
    admitted: tuple[Answer, ...]
    retired: tuple[Answer, ...]


class Batch:
    """The answers that one group works on; one plan at a time."""

    def __init__(self, group: shard_pb2.DescribeResponse) -> None:
        self._group = group
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []
        self._free_slots = list(range(group.slot_count - 1, -1, -1))
        self._free_blocks = list(range(group.block_count - 1, -1, -1))
        self._sequence = 0
        self._plan_number = 0

    def add(self, answer: Answer) -> None:
        """Somebody waits for a slot."""
        answer.left_count = answer.admit.remaining_max_tokens
        self._waiting.append(answer)

    def cancel(self, answer: Answer) -> bool:
        """Nobody wants it any more. Whether it is gone at once, having had no slot yet."""
        answer.is_cancelled = True
        if answer not in self._waiting:
            return False  # the next plan retires it
        self._waiting.remove(answer)
        return True

    def plan(self) -> Planned | None:
        """What to do next; None if there is nothing."""
        retired = self._retire()
        tokens_left = self._group.tokens_per_step - len(self._running)
        admitted, grants = self._admit(tokens_left)
        rows, counts = self._rows()
        if not rows and not retired:
            return None
        self._plan_number += 1
        samples = [_samples(answer, count) for answer, count in zip(rows, counts, strict=True)]
        message = shard_pb2.Plan(
            epoch=self._group.epoch,
            number=self._plan_number,
            retires=[
                shard_pb2.Retire(sequence=each.admit.sequence, generation=1) for each in retired
            ],
            admits=[answer.admit for answer in admitted],
            block_grants=grants,
            rows=self._row_columns(rows, counts, samples),
            num_steps=self._step_count(rows, samples),
            time_cap_us=LEASE_US,
            step_deadline_us=STEP_DEADLINE_US,
        )
        for answer, count in zip(rows, counts, strict=True):
            answer.prefilled_count = min(answer.prompt_count, answer.prefilled_count + count)
        return Planned(message, tuple(rows), tuple(admitted), tuple(retired))

    def apply(self, planned: Planned, result: shard_pb2.StepResult) -> list[tuple[Answer, int]]:
        """Who got how many tokens; the id that ends a text is none."""
        counts = _unpacked(result.row_token_counts)
        given = []
        for answer, count, state in zip(planned.rows, counts, result.row_states, strict=True):
            answer.left_count -= count
            answer.state = state
            given.append((answer, count - (state in _ENDS_BY_ID and count > 0)))
        return given

    def _retire(self) -> list[Answer]:
        over = [answer for answer in self._running if answer.is_over]
        self._running = [answer for answer in self._running if not answer.is_over]
        for answer in over:
            self._free_slots.append(answer.admit.slot)
            self._free_blocks += answer.blocks
        return over

    def _admit(self, tokens_left: int) -> tuple[list[Answer], list[shard_pb2.BlockGrant]]:
        admitted, grants = [], []
        while self._waiting and self._free_slots and tokens_left > 0:
            answer = self._waiting[0]
            whole = answer.prompt_count + answer.left_count
            block_count = -(-whole // self._group.block_size)
            if block_count > len(self._free_blocks):
                break
            self._waiting.popleft()
            self._sequence += 1
            answer.blocks = [self._free_blocks.pop() for _ in range(block_count)]
            answer.admit.sequence, answer.admit.generation = self._sequence, 1
            answer.admit.slot = self._free_slots.pop()
            tokens_left -= answer.prompt_count
            self._running.append(answer)
            admitted.append(answer)
            block_ids = _packed(answer.blocks)
            grants.append(shard_pb2.BlockGrant(slot=answer.admit.slot, block_ids=block_ids))
        return admitted, grants

    def _rows(self) -> tuple[list[Answer], list[int]]:
        """Decode rows first, then as much of the prompts as the step still holds."""
        rows = [each for each in self._running if each.prefilled_count == each.prompt_count]
        counts = [1] * len(rows)
        tokens_left = self._group.tokens_per_step - len(rows)
        for answer in self._running:
            count = min(tokens_left, answer.prompt_count - answer.prefilled_count)
            if count > 0:
                rows.append(answer)
                counts.append(count)
                tokens_left -= count
        return rows, counts

    def _row_columns(
        self, rows: Sequence[Answer], counts: Sequence[int], samples: Sequence[bool]
    ) -> shard_pb2.Rows:
        return shard_pb2.Rows(
            slots=_packed([answer.admit.slot for answer in rows]),
            token_counts=_packed(counts),
            samples=bytes(samples),
            kv_token_limits=_packed(
                [len(answer.blocks) * self._group.block_size for answer in rows]
            ),
        )

    def _step_count(self, rows: Sequence[Answer], samples: Sequence[bool]) -> int:
        """A lease where every row samples, as long as nobody reaches its end in it."""
        if not rows or not all(samples):
            return 1
        return min(self._group.steps_per_lease, *(answer.left_count for answer in rows))


def _samples(answer: Answer, count: int) -> bool:
    return answer.prefilled_count + count >= answer.prompt_count


def _packed(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _unpacked(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)
