"""Whether the ranks of a group still speak and their steps still end. Knows frames by their times.

Four limits: a rank that says nothing, a step that a rank says is overdue, a step that nobody says
anything of, a plan that is out while rank 0 says that it has nothing to do. A router that stood
still itself blames nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from santacoder.shard.v1 import shard_pb2

CHECK_SECONDS = 0.25
# Heartbeats come every second; three missed ones are a stopped process or a dead link.
HEARTBEAT_LIMIT_SECONDS = 3.5
LEAST_IDLE_HEARTBEATS = 3
# The rank notices a step that overstays before the router does, and can say more about it.
DEADLINE_MARGIN_SECONDS = 1.0

Clock = Callable[[], float]
Fail = Callable[[int, str], None]


@dataclass(slots=True)
class InFlight:
    """A plan that was sent and has not ended. Times are the router's clock, in seconds."""

    number: int
    row_count: int
    step_token_count: int
    is_long_lease: bool
    is_admission: bool
    sent_at: float
    step_deadline_seconds: float
    is_interrupted: bool = False
    steps_done: int = 0


class GroupWatch:
    """Watches one life of a group; `fail` is told the rank at fault and one line.

    `in_flight` is the group's own record of its plans, oldest first.
    """

    def __init__(
        self, rank_count: int, in_flight: Mapping[int, InFlight], clock: Clock, fail: Fail
    ) -> None:
        self.heard_at = [clock()] * rank_count
        self._in_flight = in_flight
        self._clock = clock
        self._fail = fail
        self._progress_at = clock()
        self._idle = (0, 0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from here on; every rank counts as heard."""
        self.heard_at = [self._clock()] * len(self.heard_at)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def hear(self, rank: int) -> None:
        """A rank has said something."""
        self.heard_at[rank] = self._clock()

    def note_progress(self) -> None:
        """A step has ended, or the first plan after an idle time is sent."""
        self._progress_at = self._clock()

    def stalled_seconds(self) -> float:
        """How long plans in flight have gone without a finished step; 0 with none in flight."""
        return self._clock() - self._progress_at if self._in_flight else 0.0

    def take_heartbeat(self, rank: int, heartbeat: shard_pb2.Heartbeat) -> None:
        """What a rank says of the step it runs."""
        oldest = self._oldest()
        if oldest is None or heartbeat.phase != shard_pb2.PHASE_RUNNING:
            if rank == 0 and oldest is not None and heartbeat.phase == shard_pb2.PHASE_IDLE:
                self._check_arrival(oldest)
            return
        # The age counts from the last step, which may lie long before the plan was sent.
        waited_seconds = min(heartbeat.progress_age_us / 1e6, self._clock() - oldest.sent_at)
        self._check_step(rank, oldest, waited_seconds)

    def _check_arrival(self, plan: InFlight) -> None:
        """Rank 0 has nothing to do: a plan whose result is not there has not come to it.

        One such word may have been on its way when the plan was sent, or lain here unread.
        """
        number, count = self._idle
        count = count + 1 if number == plan.number else 1
        self._idle = (plan.number, count)
        waited_seconds = self._clock() - max(plan.sent_at, self._progress_at)
        if count >= LEAST_IDLE_HEARTBEATS and waited_seconds > HEARTBEAT_LIMIT_SECONDS:
            self._fail(0, f"plan {plan.number}: has not arrived after {waited_seconds:.1f} s")

    def _oldest(self) -> InFlight | None:
        return next(iter(self._in_flight.values()), None)

    def _check_step(self, rank: int, plan: InFlight, waited_seconds: float) -> None:
        limit_seconds = plan.step_deadline_seconds + DEADLINE_MARGIN_SECONDS
        if waited_seconds > limit_seconds:
            self._fail(
                rank,
                f"plan {plan.number}: no step for {waited_seconds:.1f} s;"
                f" allowed {limit_seconds:.1f} s",
            )

    async def _watch(self) -> None:
        while True:
            due = self._clock() + CHECK_SECONDS
            await asyncio.sleep(CHECK_SECONDS)
            late_seconds = self._clock() - due
            if late_seconds < CHECK_SECONDS:
                self._check(self._clock())
            else:
                self._forgive(late_seconds)

    def _forgive(self, late_seconds: float) -> None:
        """This router stood still; perhaps the machine did, and the ranks: nobody is blamed for it.

        What they sent meanwhile is not read yet either.
        """
        now = self._clock()
        self.heard_at = [min(at + late_seconds, now) for at in self.heard_at]
        self._progress_at = min(self._progress_at + late_seconds, now)

    def _check(self, now: float) -> None:
        for rank, heard_at in enumerate(self.heard_at):
            if now - heard_at > HEARTBEAT_LIMIT_SECONDS:
                self._fail(rank, f"no heartbeat for {now - heard_at:.1f} s")
        if oldest := self._oldest():
            self._check_step(0, oldest, now - self._progress_at)
