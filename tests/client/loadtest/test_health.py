"""Who was the limit, judged from readings and records of every kind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from client.loadtest.records import answered, failed

from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.health import Pressure, judge
from santacoder_client.loadtest.load import Load, Phases
from santacoder_client.loadtest.meter import IdleSelector, LoopMeter, MeterReading
from santacoder_client.loadtest.record import Outcome, RequestRecord

PHASES = Phases(warm_up_seconds=0, steady_seconds=10, cool_down_seconds=0)
OPEN = Load("poisson", per_second=10, phases=PHASES)
CLOSED = Load("closed", concurrency=8, phases=PHASES)
IDLE = MeterReading(
    0, busy_share=0.2, cpu_share=0.3, lag_p99_seconds=1e-3, release_p99_seconds=1e-3
)


def of(load: Load, *records: RequestRecord) -> Pressure:
    pressure = Pressure(load)
    for record in records:
        pressure.add(record)
    return pressure


def even(seconds: float = 0.2) -> list[RequestRecord]:
    return [answered(index, due=index / 10, first=seconds) for index in range(100)]


def test_a_load_that_was_met_had_no_limit() -> None:
    health = judge([IDLE], of(OPEN, *even()))
    assert (health.verdict, health.reasons) == ("neither", ())
    assert (health.cpu_share, health.loop_lag_p99_ms, health.workers) == (0.3, 1.0, 1)


def test_a_closed_loop_goes_as_fast_as_the_server() -> None:
    assert judge([IDLE], of(CLOSED, *even())).verdict == "server"


@pytest.mark.parametrize(
    "reading",
    [
        replace(IDLE, busy_share=0.97),
        replace(IDLE, cpu_share=1.1, lag_p99_seconds=0.006),
        replace(IDLE, lag_p99_seconds=0.5),
        replace(IDLE, release_p99_seconds=0.5),
    ],
)
@pytest.mark.parametrize("load", [OPEN, CLOSED])
def test_a_client_that_does_not_keep_up_is_the_limit_whatever_the_server_did(
    reading: MeterReading, load: Load
) -> None:
    refused = [failed(index, due=index / 10) for index in range(100)]
    health = judge([IDLE, replace(reading, worker=1)], of(load, *refused))
    assert health.verdict == "client"
    assert len(health.reasons) == 1 and health.reasons[0].startswith("worker 1 ")
    assert health.workers == 2


def test_a_lag_does_not_matter_where_answers_take_far_longer() -> None:
    late = replace(IDLE, lag_p99_seconds=0.05)
    assert judge([late], of(OPEN, *even(seconds=0.1))).verdict == "client"
    assert judge([late], of(OPEN, *even(seconds=1.0))).verdict == "neither"


def test_refusals_are_the_servers_limit() -> None:
    few = [*even()[1:], failed(0)]
    health = judge([IDLE], of(OPEN, *few))
    assert (health.verdict, health.reasons) == ("server", ("1.0% of the requests failed",))


def test_what_a_cap_held_back_is_the_servers_limit() -> None:
    unsent = [RequestRecord(index, "t", "text", index / 10) for index in range(50)]
    health = judge([IDLE], of(replace(OPEN, concurrency=2), *even()[:50], *unsent))
    assert health.verdict == "server"
    assert "never sent" in health.reasons[0]


def test_what_had_no_end_when_the_run_had_is_the_servers_limit() -> None:
    cut = answered(0, outcome=Outcome.CANCELLED, reason=END_OF_RUN, finished_at=None)
    assert judge([IDLE], of(OPEN, *even()[1:], cut)).verdict == "server"


def test_requests_that_pile_up_are_the_servers_limit_even_if_all_are_answered() -> None:
    # Answers take longer and longer: at 150 percent of what the server can do.
    growing = [answered(index, due=index / 100, first=index / 200) for index in range(1000)]
    health = judge([IDLE], of(OPEN, *growing))
    assert health.verdict == "server"
    assert "piled up" in health.reasons[0]


def test_planned_cancels_and_superseded_turns_are_nobodys_limit() -> None:
    cut = [
        answered(index, due=index / 10, outcome=outcome, cancelled_at=index / 10 + 0.1)
        for index, outcome in enumerate([Outcome.CANCELLED, Outcome.SUPERSEDED] * 50)
    ]
    assert judge([IDLE], of(OPEN, *cut)).verdict == "neither"


def test_what_was_due_outside_of_the_steady_part_does_not_count() -> None:
    warm = [failed(index, due=0.5) for index in range(50)]
    load = replace(OPEN, phases=replace(PHASES, warm_up_seconds=1, steady_seconds=9))
    assert judge([IDLE], of(load, *warm, *even()[10:])).verdict == "neither"


def test_nothing_measured_is_no_verdict_and_no_error() -> None:
    health = judge([], of(OPEN))
    assert (health.verdict, health.workers, health.cpu_share) == ("neither", 0, 0.0)


def metered(work_seconds: float, rest_seconds: float) -> MeterReading:
    """The reading of a loop that works and rests in turns, twenty times."""
    selector = IdleSelector()
    meter = LoopMeter(0, selector)

    async def run() -> MeterReading:
        ticking = asyncio.create_task(meter.tick(time.monotonic))
        meter.begin()
        for _ in range(20):
            time.sleep(work_seconds)
            await asyncio.sleep(rest_seconds)
        reading = meter.end()
        ticking.cancel()
        return reading

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(run())


TRIES = range(5)
"""A machine that stands still in the second of a measurement spoils that one, not the next too."""


def test_a_loop_that_never_rests_is_busy_and_late() -> None:
    readings = (metered(work_seconds=0.03, rest_seconds=0.0) for _ in TRIES)
    assert any(each.busy_share > 0.9 and each.lag_p99_seconds >= 0.01 for each in readings)


def test_a_loop_that_waits_is_not_busy() -> None:
    assert any(metered(work_seconds=0.0, rest_seconds=0.02).busy_share < 0.5 for _ in TRIES)


def test_one_long_stall_is_not_hidden_by_many_short_waits() -> None:
    selector = IdleSelector()
    meter = LoopMeter(0, selector)

    async def run() -> MeterReading:
        ticking = asyncio.create_task(meter.tick(time.monotonic))
        meter.begin()
        await asyncio.sleep(0.2)
        time.sleep(0.2)
        await asyncio.sleep(0.02)
        ticking.cancel()
        return meter.end()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        # One tick of some thirty was late; those that it swallowed count too.
        assert runner.run(run()).lag_p99_seconds > 0.1


def test_a_meter_that_never_began_reads_nothing() -> None:
    reading = LoopMeter(3, IdleSelector()).end()
    assert (reading.worker, reading.busy_share, reading.cpu_share) == (3, 0.0, 0.0)
