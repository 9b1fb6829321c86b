"""All ranks as one, for one life: handshake, fan-out, agreement, and failing together.

Knows no scheduling and no text. The first error, ended stream, disagreement or silence of any rank
ends the group; a group that has failed stays failed, and what still arrives changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc

from santacoder.shard.v1 import shard_pb2
from santacoder_router import codec
from santacoder_router.core.plan import RowState, StepPlan, StepResult
from santacoder_router.deadline import StepDeadline
from santacoder_router.digests import DigestLedger, Divergence
from santacoder_router.group_failure import GroupFailure as GroupFailure
from santacoder_router.group_watch import Clock, GroupWatch, InFlight
from santacoder_router.handshake import PROTOCOL_VERSION, Description, agree
from santacoder_router.shard_link import ShardLink

DESCRIBE_SECONDS = 5.0
HALF_CLOSE_SECONDS = 3.0
# A lease of this length is over, or nearly, before an interrupt is there.
SHORT_LEASE_SECONDS = 0.0005


class Arrived(NamedTuple):
    """A result, with the plan it belongs to."""

    result: StepResult
    plan: InFlight


async def connect(
    addresses: Sequence[str], clock: Clock, credentials: grpc.ChannelCredentials | None = None
) -> ShardGroup:
    """One try: describes every rank and opens no stream yet. Without credentials in plaintext.

    Raises grpc.aio.AioRpcError (a rank cannot be reached), CodecError, GroupRefused or GroupMixed.
    """
    links = [ShardLink(rank, address, credentials) for rank, address in enumerate(addresses)]
    try:
        description = agree(await _describe_all(links))
    except BaseException:
        for link in links:
            await link.close()
        raise
    return ShardGroup(links, description, clock)


async def _describe_all(links: Sequence[ShardLink]) -> list[Description]:
    asked = (link.describe(DESCRIBE_SECONDS) for link in links)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    try:
        if failures:
            raise failures[0]
        return [answer for answer in answers if isinstance(answer, Description)]
    finally:
        # An error that its own trace can reach stays until the collector comes, and with it the
        # call and the connections: ten more of them a second while a rank is missing.
        del answers, failures


def _nobody() -> None:
    """Who is woken before the group is open."""


class ShardGroup:
    """A connected group; `description` is what its ranks agree on."""

    def __init__(
        self,
        links: Sequence[ShardLink],
        description: Description,
        clock: Clock,
    ) -> None:
        self.description = description
        self.failure: GroupFailure | None = None
        self._links = links
        self._clock = clock
        self._wake: Callable[[], None] = _nobody
        self._ledger = DigestLedger(len(links))
        self._deadline = StepDeadline()
        self._in_flight: dict[int, InFlight] = {}
        self._arrived: list[Arrived] = []
        self._failed_sequences: dict[int, str] = {}
        # The plan whose step ended last, and how many of its steps had.
        self._last_step = (0, 0)
        self._watch = GroupWatch(len(links), self._in_flight, clock, self._fail)

    def open(self, wake: Callable[[], None]) -> None:
        """Opens every rank's stream and starts the watchdog.

        `wake` is called from then on when there is something to take or the group has failed.
        """
        self._wake = wake
        for link in self._links:
            hello = codec.encode_hello(PROTOCOL_VERSION, self.description.epoch, link.rank)
            link.open(hello, self._on_frame, self._on_end)
        self._watch.start()

    def send(self, plan: StepPlan, lease_seconds: float) -> None:
        """Sends one plan, the same bytes to every rank."""
        token_count = sum(row.token_count for row in plan.rows)
        limit_seconds = self._deadline.seconds(token_count)
        frame = codec.encode_plan(plan, self.description.epoch, lease_seconds, limit_seconds)
        now = self._clock()
        if not self._in_flight:
            self._watch.note_progress()
        self._in_flight[plan.number] = InFlight(
            number=plan.number,
            row_count=len(plan.rows),
            step_token_count=token_count,
            is_long_lease=self._is_long_lease(plan, token_count),
            is_admission=bool(plan.admits),
            sent_at=now,
            step_deadline_seconds=limit_seconds,
        )
        for link in self._links:
            link.send(frame)

    @property
    def plan_count(self) -> int:
        """Plans sent and not yet answered."""
        return len(self._in_flight)

    def interrupt_lease(self, is_somebody_queued: bool) -> None:
        """Cuts the running lease short, once, if anybody waits; rank 0 fixes the step for all."""
        oldest = self._oldest()
        if oldest is None or not oldest.is_long_lease or oldest.is_interrupted:
            return
        # Whoever is in a plan behind the lease waits for it just as well.
        behind = (plan for plan in self._in_flight.values() if plan is not oldest)
        if is_somebody_queued or any(plan.is_admission for plan in behind):
            oldest.is_interrupted = True
            self._links[0].send(codec.encode_interrupt(oldest.number))

    def _is_long_lease(self, plan: StepPlan, token_count: int) -> bool:
        """Whether it pays to cut it short; also where nobody knows how long it takes."""
        seconds = self._deadline.lease_seconds(token_count, len(plan.rows), plan.num_steps)
        return plan.num_steps > 1 and (seconds is None or seconds > SHORT_LEASE_SECONDS)

    def take_results(self) -> list[Arrived]:
        """Rank 0's results since the last call, in order; none once the group has failed."""
        arrived, self._arrived = self._arrived, []
        return [] if self.failure else arrived

    def take_failed_sequences(self) -> dict[int, str]:
        """Sequences that a rank gave up alone since the last call, with a line each for the log."""
        failed, self._failed_sequences = self._failed_sequences, {}
        return failed

    def stalled_seconds(self) -> float:
        """How long plans in flight have gone without a finished step; 0 with none in flight."""
        return self._watch.stalled_seconds()

    async def close(self, graceful: bool = False) -> None:
        """Ends the streams; graceful half-closes them first, so that ranks see the end coming."""
        await self._watch.stop()
        if self.failure is None:
            self.failure = GroupFailure(0, "closed")
        grace_seconds = HALF_CLOSE_SECONDS if graceful else 0.0
        await asyncio.gather(*(link.close(grace_seconds) for link in self._links))

    def _fail(self, rank: int, message: str) -> None:
        if self.failure is None:
            self.failure = GroupFailure(rank, message, *self._last_step, tuple(self._in_flight))
            self._wake()

    def _on_end(self, rank: int, message: str) -> None:
        self._fail(rank, message)

    def _on_frame(self, rank: int, response: shard_pb2.ExecuteResponse) -> None:
        if self.failure is not None:
            return
        self._watch.hear(rank)
        try:
            self._take_frame(rank, response)
        except (codec.CodecError, Divergence) as error:
            self._fail(rank, str(error))

    def _take_frame(self, rank: int, response: shard_pb2.ExecuteResponse) -> None:
        kind = response.WhichOneof("frame")
        if kind == "accepted":
            accepted = response.accepted
            self._ledger.accepted(rank, accepted.plan_number, accepted.digest)
        elif kind == "result":
            self._take_result(rank, response.result)
        elif kind == "heartbeat":
            self._watch.take_heartbeat(rank, response.heartbeat)
        elif kind == "error":
            self._take_error(rank, response.error)

    def _take_result(self, rank: int, message: shard_pb2.StepResult) -> None:
        number = message.plan_number
        end_step = message.first_step + message.steps_run
        self._ledger.ran(rank, number, end_step, message.final, message.digest)
        if rank != 0:
            return
        plan = self._in_flight.get(number)
        if plan is None:
            raise codec.CodecError(f"plan {number}: answered, but not in flight")
        if plan is not self._oldest() or message.first_step != plan.steps_done:
            raise codec.CodecError(f"plan {number}: step {message.first_step} is out of order")
        plan.steps_done += message.steps_run
        result = codec.decode_result(message, plan.row_count, self.description.token_count)
        if _has_lost_its_numbers(result):
            raise codec.CodecError(f"plan {number}: no row's logits are finite")
        self._last_step = (number, end_step)
        self._watch.note_progress()
        if result.steps_run:
            self._observe(plan, result)
        if result.final:
            del self._in_flight[number]
        self._arrived.append(Arrived(result, plan))
        self._wake()

    def _observe(self, plan: InFlight, result: StepResult) -> None:
        token_count = plan.row_count if result.first_step else plan.step_token_count
        # A lease's first step may run prompts, the others do not: together they tell of neither.
        if result.steps_run == 1 or token_count == plan.row_count:
            self._deadline.observe(token_count, result.device_seconds / result.steps_run)

    def _take_error(self, rank: int, error: shard_pb2.ShardError) -> None:
        if error.sequence:
            self._failed_sequences[error.sequence] = error.message
            self._wake()
        else:
            self._fail(rank, f"plan {error.plan_number}: {error.message}")

    def _oldest(self) -> InFlight | None:
        return next(iter(self._in_flight.values()), None)


def _has_lost_its_numbers(result: StepResult) -> bool:
    """Whether every row of several went wrong: then it is the weights or the device, no request."""
    rows = result.rows
    return len(rows) > 1 and all(row.state is RowState.NON_FINITE for row in rows)
