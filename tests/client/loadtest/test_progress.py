"""How a run goes so far: from its schedule and the records that have come."""

from __future__ import annotations

import pytest

from santacoder_client.loadtest.load import Load, Phases
from santacoder_client.loadtest.progress import Progress, phase_at
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord

PHASES = Phases(warm_up_seconds=2.0, steady_seconds=20.0, cool_down_seconds=1.0)
CONSTANT = Load(model="constant", spacing="constant", per_second=10.0, phases=PHASES)


def ended(
    at: float,
    first_token_seconds: float | None = None,
    outcome: Outcome = Outcome.OK,
    reason: str = "",
) -> RequestRecord:
    """A request of one second that ended then, with 40 tokens."""
    due = at - 1.0
    first = [Chunk(due + first_token_seconds, 1)] if first_token_seconds is not None else []
    return RequestRecord(
        index=0,
        target="somewhere",
        kind="text",
        scheduled_at=due,
        dispatched_at=due,
        chunks=first,
        finished_at=at,
        outcome=outcome,
        reason=reason,
        completion_token_count=40,
    )


def test_what_is_in_flight_is_what_was_due_less_what_ended() -> None:
    progress = Progress(CONSTANT)
    for number in range(15):
        progress.add(ended(1.0 + number / 10))
    snapshot = progress.at(2.05)
    # Due at 0.0, 0.1 ... 2.0.
    assert snapshot.in_flight_count == 21 - 15
    assert snapshot.held_count == 0


def test_what_a_cap_keeps_back_is_told_apart() -> None:
    progress = Progress(
        Load(model="constant", spacing="constant", per_second=10.0, concurrency=4, phases=PHASES)
    )
    snapshot = progress.at(2.05)
    assert (snapshot.in_flight_count, snapshot.held_count) == (4, 17)


def test_rates_are_those_of_the_last_five_seconds() -> None:
    progress = Progress(CONSTANT)
    for number in range(100):
        progress.add(ended(number / 10, outcome=Outcome.OK))
    early = progress.at(10.0)
    assert early.offered_per_second == pytest.approx(10.0, rel=0.05)
    assert early.answered_per_second == pytest.approx(10.0, rel=0.05)
    assert early.tokens_per_second == pytest.approx(400.0, rel=0.05)
    late = progress.at(18.0)
    assert late.answered_per_second == late.tokens_per_second == 0.0
    assert late.offered_per_second == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("seconds", [0.00005, 0.024, 3.7])
def test_first_token_percentiles_are_within_a_percent(seconds: float) -> None:
    progress = Progress(CONSTANT)
    for number in range(200):
        progress.add(ended(5.0 + number / 100, seconds * (100 if number >= 197 else 1)))
    snapshot = progress.at(8.0)
    assert snapshot.first_token_p50_ms == pytest.approx(1000 * seconds, rel=0.01)
    assert snapshot.first_token_p99_ms == pytest.approx(100_000 * seconds, rel=0.01)


def test_the_first_steady_request_ends_the_warm_ups_latencies() -> None:
    progress = Progress(CONSTANT)
    progress.add(ended(1.5, 0.9))
    assert progress.at(1.6).first_token_p50_ms == pytest.approx(900, rel=0.01)
    progress.add(ended(3.5, 0.1))
    assert progress.at(3.6).first_token_p99_ms == pytest.approx(100, rel=0.01)


def test_failures_are_counted_by_reason() -> None:
    progress = Progress(CONSTANT)
    for reason in ("QUEUE_FULL", "SHARD_LOST", "QUEUE_FULL"):
        progress.add(ended(1.0, outcome=Outcome.FAILED, reason=reason))
    snapshot = progress.at(1.0)
    assert snapshot.failed_count == 3
    assert snapshot.errors == (("QUEUE_FULL", 2), ("SHARD_LOST", 1))


def test_superseded_requests_are_counted_apart_from_failures() -> None:
    progress = Progress(CONSTANT)
    progress.add(ended(1.0, outcome=Outcome.SUPERSEDED))
    snapshot = progress.at(1.0)
    assert (snapshot.superseded_count, snapshot.failed_count) == (1, 0)
    assert snapshot.answered_per_second == 0.0


def test_a_closed_loop_has_no_schedule_to_hold_it_against() -> None:
    snapshot = Progress(Load(model="closed", concurrency=8, phases=PHASES)).at(3.0)
    assert snapshot.offered_per_second is None
    assert snapshot.in_flight_count is None
    assert snapshot.first_token_p50_ms is None


def test_people_who_type_have_a_schedule() -> None:
    snapshot = Progress(Load(model="editor", editor_count=5, phases=PHASES)).at(10.0)
    assert snapshot.offered_per_second and snapshot.in_flight_count


def test_phases_in_words() -> None:
    moments = (0.0, 2.0, 22.0, 23.0)
    assert [phase_at(PHASES, moment) for moment in moments] == [
        "warming up",
        "measuring",
        "cooling down",
        "waiting for answers",
    ]
