"""Every figure equals what its definition says of requests whose times are known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from client.loadtest.records import answered, cut, failed, unsent
from hypothesis import given, settings
from hypothesis import strategies as st

from santacoder_client.loadtest.columns import Columns
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.metrics import METRICS
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.result import Outcomes, Summary
from santacoder_client.loadtest.window import Window

WHOLE = Window.planned(0.0, 10.0, 0.0)


def means_ms(*records: RequestRecord, window: Window = WHOLE) -> dict[str, float]:
    summary = summarize(records, window)
    return {name: figure.mean for name, figure in summary.figures.items()}


def test_every_latency_of_one_request() -> None:
    record = answered(due=1.0, delay=0.5, first=0.1, gaps=[0.02, 0.06], tokens=[2, 1, 3], tail=0.04)
    record.server_queue_seconds = 0.007
    assert means_ms(record) == pytest.approx(
        {
            "ttft": 100,
            "ttft_scheduled": 600,
            "second_token": 20,
            # One token after 20 ms, three after 60: as tokens 20, 20, 20, 20; as messages 20, 60.
            "itl_token": 20,
            "itl_chunk": 40,
            # 80 ms for the four tokens after the first message.
            "tpot": 20,
            "e2e": 220,
            "e2e_scheduled": 720,
            "queue": 7,
            "dispatch_delay": 500,
        }
    )


def test_a_message_of_several_tokens_counts_by_token_and_by_message() -> None:
    summary = summarize([answered(gaps=[0.08, 0.01], tokens=[1, 8, 1])], WHOLE)
    by_token, by_chunk = summary.figures["itl_token"], summary.figures["itl_chunk"]
    assert by_token.count == 9 and by_token.max == pytest.approx(10)
    assert by_chunk.count == 2 and by_chunk.max == pytest.approx(80)


def test_a_unary_answer_has_an_end_and_no_first_token() -> None:
    record = answered(first=None, tail=0.3)
    record.completion_token_count = 50
    summary = summarize([record], WHOLE)
    assert set(summary.figures) == {"e2e", "e2e_scheduled", "dispatch_delay"}
    assert summary.rates.completion_tokens_per_second == pytest.approx(5)
    assert summary.rates.prompt_tokens_per_second == pytest.approx(1)


def test_one_token_has_no_gap() -> None:
    figures = means_ms(answered(first=0.1))
    assert not {"second_token", "itl_token", "itl_chunk", "tpot"} & set(figures)


def test_failures_enter_no_latency() -> None:
    broken = failed(due=1.0, after=9.0)
    broken.chunks = answered(due=1.0, first=5.0, gaps=[5.0]).chunks
    broken.server_queue_seconds = 100.0
    alone, beside = means_ms(answered(first=0.1)), means_ms(answered(first=0.1), broken)
    assert {name: beside[name] for name in alone} == pytest.approx(alone)
    assert set(beside) == set(alone)


def test_cut_requests_have_a_first_token_and_no_end() -> None:
    record = cut(first=0.1, after=0.3, confirmed=0.002)
    assert means_ms(record) == pytest.approx(
        {"ttft": 100, "ttft_scheduled": 100, "cancel": 2, "dispatch_delay": 0}, abs=1e-9
    )
    assert "cancel" not in means_ms(cut(confirmed=None))


def test_the_window_chooses_by_when_a_request_was_due() -> None:
    window = Window.planned(5.0, 10.0, 2.0)
    records = [
        answered(0, due=4.999, first=9.0),
        answered(1, due=5.0, first=0.1),
        answered(2, due=14.999, delay=5.0, first=0.1),
        answered(3, due=15.0, first=9.0),
    ]
    summary = summarize(records, window)
    assert summary.outcomes == Outcomes(ok=2)
    assert summary.figures["ttft"].max == pytest.approx(100)
    assert summary.figures["ttft_scheduled"].max == pytest.approx(5100)


def test_rates_count_what_arrived_in_the_window_whoever_asked() -> None:
    window = Window.planned(5.0, 10.0, 0.0)
    early = answered(0, due=1.0, first=1.0, gaps=[6.0], tokens=[10, 20])  # 10 at 2 s, 20 at 8 s
    late = answered(1, due=14.0, first=0.5, gaps=[2.0], tokens=[30, 40])  # 30 at 14.5, 40 at 16.5
    rates = summarize([early, late, unsent(2, 6.0), failed(3, 7.0)], window).rates
    assert rates.offered_per_second == pytest.approx(0.3)
    assert rates.dispatched_per_second == pytest.approx(0.2)
    assert rates.finished_per_second == pytest.approx(0.1)
    assert rates.completion_tokens_per_second == pytest.approx(5.0)
    assert rates.peak_completion_tokens_per_second == 30
    assert rates.prompt_tokens_per_second == pytest.approx(1.0)


def test_a_run_cut_short_counts_what_there_was() -> None:
    window = Window.planned(5.0, 30.0, 2.0).cut_at(9.0)
    assert (window.begin, window.end) == (5.0, 9.0)
    summary = summarize([answered(0, due=6.0), answered(1, due=9.5)], window)
    assert summary.outcomes.ok == 1
    assert summary.rates.offered_per_second == pytest.approx(0.25)


def test_a_run_cut_in_its_warm_up_claims_nothing() -> None:
    window = Window.planned(5.0, 30.0, 2.0).cut_at(3.0)
    summary = summarize([answered(0, due=1.0)], window)
    assert summary.outcomes == Outcomes() and summary.figures == {}
    assert summary.rates.finished_per_second is None
    assert len(summary.timeline) == 2


def test_errors_are_counted_by_status_and_reason() -> None:
    records = [failed(i, 1.0) for i in range(3)] + [failed(3, 1.0, reason="SHARD_LOST")]
    summary = summarize([*records, failed(4, 99.0), answered(5), cut(6)], WHOLE)
    assert [(e.reason, e.count, e.example) for e in summary.errors] == [
        ("QUEUE_FULL", 3, "refused 0"),
        ("SHARD_LOST", 1, "refused 3"),
    ]
    assert summary.outcomes == Outcomes(ok=1, failed=4, superseded=1)


def test_the_cached_share_is_by_token() -> None:
    one = answered(0, prompt_token_count=100, cached_token_count=75)
    other = answered(1, prompt_token_count=300, cached_token_count=25)
    assert summarize([one, other], WHOLE).cached_share == pytest.approx(0.25)
    assert summarize([failed()], WHOLE).cached_share is None


def test_nothing_gives_an_empty_summary() -> None:
    summary = summarize([], WHOLE)
    assert summary.figures == {} and summary.timeline == () and summary.histograms == {}
    assert summary.rates.offered_per_second == 0


def test_the_timeline_shows_each_second() -> None:
    records = [
        answered(0, due=0.2, first=0.1, gaps=[1.0], tokens=[1, 4]),  # 0.2 to 1.3
        answered(1, due=0.4, first=0.3),  # 0.4 to 0.7
        failed(2, due=2.5, after=0.1),
        cut(3, due=2.55, first=None, after=1.0),  # to 3.552
        unsent(4, due=4.9),
    ]
    bins = summarize(records, WHOLE).timeline
    assert [b.at_seconds for b in bins] == [0, 1, 2, 3, 4]
    assert [b.dispatched for b in bins] == [2, 0, 2, 0, 0]
    assert [b.finished for b in bins] == [1, 1, 0, 0, 0]
    assert [b.failed for b in bins] == [0, 0, 1, 0, 0]
    assert [b.completion_tokens for b in bins] == [2, 4, 0, 0, 0]
    assert [b.in_flight for b in bins] == [2, 1, 2, 1, 0]
    assert bins[0].ttft_p50_ms == pytest.approx(200) and bins[0].e2e_p50_ms == pytest.approx(700)
    assert bins[1].ttft_p50_ms is None


def test_one_that_ends_makes_room_for_one_that_begins() -> None:
    records = [answered(i, due=0.25 * i, first=0.25) for i in range(8)]
    assert [b.in_flight for b in summarize(records, WHOLE).timeline] == [1, 1, 0]


def in_hundred_ways(count: int, seed: int) -> Iterator[RequestRecord]:
    random = np.random.default_rng(seed)
    for index in range(count):
        length = int(random.integers(1, 6))
        record = answered(
            index,
            due=float(random.random() * 12),
            delay=float(random.random() * 0.01),
            first=float(random.exponential(0.1)),
            gaps=[float(gap) for gap in random.exponential(0.02, length - 1)],
            tokens=[int(count) for count in random.integers(1, 5, length)],
        )
        record.outcome = list(Outcome)[int(random.integers(0, 4))]
        if record.outcome in (Outcome.CANCELLED, Outcome.SUPERSEDED) and record.finished_at:
            record.cancelled_at = record.finished_at - 0.001
        yield record


def plain_samples(records: list[RequestRecord], window: Window) -> dict[str, list[float]]:
    """The definitions again, one request at a time, without numpy."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for record in records:
        sent, ended = record.dispatched_at, record.finished_at
        assert sent is not None and ended is not None
        if not window.begin <= record.scheduled_at < window.end:
            continue
        found["dispatch_delay"].append(sent - record.scheduled_at)
        if record.outcome is Outcome.FAILED:
            continue
        times = [chunk.at_seconds for chunk in record.chunks]
        found["ttft"].append(times[0] - sent)
        found["ttft_scheduled"].append(times[0] - record.scheduled_at)
        found["second_token"] += [times[1] - times[0]] if len(times) > 1 else []
        for before, after in zip(record.chunks, record.chunks[1:], strict=False):
            gap = after.at_seconds - before.at_seconds
            found["itl_chunk"].append(gap)
            found["itl_token"] += [gap / after.token_count] * after.token_count
        if record.outcome is Outcome.OK:
            later = sum(chunk.token_count for chunk in record.chunks[1:])
            found["tpot"] += [(times[-1] - times[0]) / later] if later else []
            found["e2e"].append(ended - sent)
            found["e2e_scheduled"].append(ended - record.scheduled_at)
        elif record.cancelled_at is not None:
            found["cancel"].append(ended - record.cancelled_at)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 120), st.integers(0, 2**32 - 1))
def test_figures_of_many_equal_the_definitions_one_by_one(count: int, seed: int) -> None:
    records = list(in_hundred_ways(count, seed))
    window = Window.planned(2.0, 8.0, 2.0)
    summary = summarize(records, window)
    for name, values in plain_samples(records, window).items():
        figure = summary.figures.get(name)
        assert (figure is None) == (not values), name
        if figure is not None:
            assert figure.count == len(values)
            assert figure.mean == pytest.approx(1000 * math.fsum(values) / len(values), abs=1e-6)
            assert figure.max == pytest.approx(1000 * max(values), abs=1e-6)
    check_sums(summary, records)


def check_sums(summary: Summary, records: list[RequestRecord]) -> None:
    for name, histogram in summary.histograms.items():
        assert sum(histogram.counts) == summary.figures[name].count
        assert histogram.edges_ms[0] <= summary.figures[name].min + 1e-9
        assert histogram.edges_ms[-1] >= summary.figures[name].max - 1e-9
        assert list(histogram.edges_ms) == sorted(histogram.edges_ms)
    tokens = sum(chunk.token_count for record in records for chunk in record.chunks)
    assert sum(b.completion_tokens for b in summary.timeline) == tokens
    assert sum(b.dispatched for b in summary.timeline) == len(records)


def test_a_long_run_has_its_last_percentile_with_both_ends() -> None:
    columns = Columns()
    gaps, tokens = [0.01] * 99, [1] * 100
    for index in range(2000):
        columns.add(answered(index, due=index / 100, gaps=gaps, tokens=tokens))
    summary = summarize(columns, Window.planned(0.0, 20.0, 0.0))
    figure = summary.figures["itl_token"]
    assert figure.count == 198_000
    p999 = figure.percentiles["p99.9"]
    assert p999.value == pytest.approx(10) and p999.low is not None and p999.high is not None
