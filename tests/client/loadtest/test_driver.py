"""When the driver sends, whatever comes back; against senders that answer as told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from santacoder_client.loadtest.answer import END_OF_RUN, note_cancelled
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.driver import Driver, Route
from santacoder_client.loadtest.load import Load, Phases, Share
from santacoder_client.loadtest.meter import IdleSelector, LoopMeter
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.sender import Clock

SHORT = Phases(warm_up_seconds=0.05, steady_seconds=0.3, cool_down_seconds=0.05, grace_seconds=60)
LONG = replace(SHORT, steady_seconds=3600)
OPEN = Load("constant", per_second=100, spacing="constant", phases=SHORT)
CLOSED = Load("closed", concurrency=4, phases=SHORT)


class Numbers:
    """Prompts that hold their number."""

    name, sha256 = "numbers", "0"

    def prompt(self, index: int) -> Prompt:
        return Prompt("token_ids", token_ids=(index,), family=f"f{index % 2}")


class Pausing:
    """Answers after so many seconds, and notes how many it answered at once."""

    def __init__(self, seconds: float, outcome: Outcome = Outcome.OK) -> None:
        self._seconds = seconds
        self._outcome = outcome
        self.running = self.most_running = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, prompt: Prompt, record: RequestRecord, clock: Clock) -> None:
        assert prompt.token_ids == (record.index,)
        record.dispatched_at = clock()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            note_cancelled(record, END_OF_RUN)
            raise
        finally:
            self.running -= 1
        record.finished_at = clock()
        record.outcome = self._outcome


def drive(
    load: Load,
    *senders: Pausing,
    source: Numbers | None = None,
    share: Share | None = None,
    stop_when: Callable[[list[RequestRecord]], bool] = lambda records: False,
) -> list[RequestRecord]:
    """The records, in the order in which they were over."""
    records: list[RequestRecord] = []
    selector = IdleSelector()
    routes = [Route(f"target-{number}", sender) for number, sender in enumerate(senders)]
    meter = LoopMeter(0, selector)
    driver = Driver(load, share or Share(), source or Numbers(), routes, meter, records.append)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:

        async def stop() -> None:
            while not stop_when(records):
                await asyncio.sleep(0.01)
            driver.stop()

        async def run() -> None:
            began = time.monotonic()
            stopping = asyncio.create_task(stop())
            await driver.run(lambda: time.monotonic() - began)
            stopping.cancel()

        runner.run(run())
    return records


def outcomes(records: list[RequestRecord]) -> dict[Outcome, int]:
    found = [record.outcome for record in records]
    return {outcome: found.count(outcome) for outcome in dict.fromkeys(found)}


def test_an_open_loop_sends_on_schedule_while_nothing_is_answered() -> None:
    never = Pausing(3600)
    records = drive(OPEN, never, stop_when=lambda records: never.running == 40)
    assert sorted(record.scheduled_at for record in records) == [
        pytest.approx(index / 100) for index in range(40)
    ]
    assert outcomes(records) == {Outcome.CANCELLED: 40}
    for record in records:
        assert record.dispatched_at is not None and record.dispatched_at >= record.scheduled_at


def test_scheduled_is_when_it_was_due_and_not_when_it_was_sent() -> None:
    slow = Pausing(0.05)
    load = replace(OPEN, concurrency=1, phases=LONG)
    records = drive(load, slow, stop_when=lambda records: len(records) == 4)
    assert slow.most_running == 1
    late = [
        record.dispatched_at - record.scheduled_at for record in records if record.dispatched_at
    ]
    # The fourth was due at 30 ms, and its turn came when three had taken 50 ms each.
    assert late[3] >= 0.1


def test_what_a_cap_keeps_back_to_the_end_is_unsent_and_not_forgotten() -> None:
    records = drive(replace(OPEN, concurrency=2), Pausing(0.5))
    assert len(records) == 40
    unsent = [record for record in records if record.outcome is Outcome.UNSENT]
    assert len(unsent) == 38
    assert all(record.dispatched_at is None and record.status == "" for record in unsent)
    assert sorted(record.index for record in records) == list(range(40))


def test_a_closed_loop_holds_its_concurrency_and_asks_again_when_answered() -> None:
    sender = Pausing(0.02)
    load = replace(CLOSED, phases=LONG)
    records = drive(load, sender, stop_when=lambda records: len(records) >= 20)
    assert sender.most_running == 4
    assert outcomes(records)[Outcome.OK] >= 20
    assert len({record.index for record in records}) == len(records)


def test_users_of_a_closed_loop_do_not_hammer_a_server_that_refuses() -> None:
    records = drive(CLOSED, Pausing(0.0, Outcome.FAILED))
    assert 4 <= len(records) <= 4 * 0.4 / 0.1 + 4


def test_the_last_answers_are_waited_for() -> None:
    records = drive(OPEN, Pausing(0.45))
    assert outcomes(records) == {Outcome.OK: 40}


def test_what_outlasts_the_grace_is_cancelled_by_the_end_of_the_run() -> None:
    load = replace(CLOSED, phases=replace(SHORT, grace_seconds=0.2))
    records = drive(load, Pausing(3600))
    assert outcomes(records) == {Outcome.CANCELLED: 4}
    assert {record.reason for record in records} == {END_OF_RUN}


def test_stopped_early_everything_that_was_sent_is_told() -> None:
    never = Pausing(3600)
    load = replace(OPEN, concurrency=3, phases=LONG)
    began = time.monotonic()
    late = 0.1

    def is_late(records: list[RequestRecord]) -> bool:
        return never.running == 3 and time.monotonic() - began > late

    records = drive(load, never, stop_when=is_late)
    assert outcomes(records)[Outcome.CANCELLED] == 3
    assert outcomes(records)[Outcome.UNSENT] >= 1
    assert max(record.scheduled_at for record in records) < 30


def test_what_a_late_client_never_sent_is_told_as_unsent() -> None:
    class Dear(Numbers):
        def prompt(self, index: int) -> Prompt:
            time.sleep(0.05)
            return super().prompt(index)

    load = replace(OPEN, phases=replace(SHORT, grace_seconds=0))
    records = drive(load, Pausing(0.0), source=Dear())
    assert sorted(record.index for record in records) == list(range(40))
    assert outcomes(records)[Outcome.UNSENT] >= 20


def test_shares_of_workers_make_the_whole_schedule() -> None:
    shares = [Share(worker, 3) for worker in range(3)]
    parts = [drive(OPEN, Pausing(0.0), share=share) for share in shares]
    assert {record.worker for record in parts[1]} <= {0, 1, 2}
    indexes = sorted(record.index for part in parts for record in part)
    assert indexes == list(range(40))


def test_users_of_a_closed_loop_are_shared_out() -> None:
    load = replace(CLOSED, concurrency=5, phases=LONG)
    for worker, users in ((0, 3), (1, 2)):
        sender = Pausing(0.01)
        share = Share(worker, 2)
        records = drive(load, sender, share=share, stop_when=lambda records: len(records) > 9)
        assert sender.most_running == users
        assert {record.index % 2 for record in records} == {worker}


def test_several_targets_take_turns() -> None:
    records = drive(OPEN, Pausing(0.0), Pausing(0.0))
    by_target = [record.target for record in sorted(records, key=lambda each: each.index)]
    assert by_target == ["target-0", "target-1"] * 20


def test_records_say_what_the_data_calls_them() -> None:
    records = drive(OPEN, Pausing(0.0))
    assert {(record.kind, record.family) for record in records} == {
        ("token_ids", "f0"),
        ("token_ids", "f1"),
    }


def test_data_that_cannot_go_on_ends_the_run_with_its_error() -> None:
    class Broken(Numbers):
        def prompt(self, index: int) -> Prompt:
            raise LookupError("no prompt 0")

    async def run() -> None:
        selector = IdleSelector()
        meter = LoopMeter(0, selector)
        route = Route("target", Pausing(0.0))
        driver = Driver(OPEN, Share(), Broken(), [route], meter, lambda record: None)
        await driver.run(lambda: 0.0)

    with pytest.raises(LookupError, match="no prompt 0"):
        asyncio.run(run())
