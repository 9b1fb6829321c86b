"""Which SLOs can be said, and which requests meet them."""

from __future__ import annotations

import pytest
from client.loadtest.records import answered, cut, failed, unsent

from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.slo import parse_slo, parse_slos
from santacoder_client.loadtest.window import Window

WHOLE = Window.planned(0.0, 10.0, 0.0)


def share(slo: str, *records: RequestRecord) -> float | None:
    return summarize(records, WHOLE, [parse_slo(slo)]).goodput[0].share


def test_an_slo_is_met_if_every_condition_holds() -> None:
    good, slow_first = answered(0, first=0.05), answered(1, first=0.2)
    slow_end = answered(2, first=0.05, gaps=[3.0])
    (goodput,) = summarize(
        [good, slow_first, slow_end], WHOLE, [parse_slo("ttft<100ms,e2e<2s")]
    ).goodput
    assert goodput.slo == "ttft<100ms,e2e<2s"
    assert goodput.share == pytest.approx(1 / 3)
    assert goodput.per_second == pytest.approx(0.1)


def test_the_bound_itself_is_met_only_by_its_relation() -> None:
    record = answered(first=0.5)
    assert share("ttft<500ms", record) == 0
    assert share("ttft<=0.5s", record) == 1


def test_failed_and_unsent_requests_missed_every_slo() -> None:
    assert share("e2e<9s", answered(0), failed(1), unsent(2), unsent(3)) == pytest.approx(0.25)


def test_requests_cut_by_the_load_are_not_counted() -> None:
    assert share("e2e<9s", answered(0), cut(1), cut(2, outcome=Outcome.CANCELLED)) == 1
    assert share("e2e<9s", cut(1)) is None


def test_requests_cut_by_the_end_of_the_run_missed_what_they_had_missed_by_then() -> None:
    def ended(first: float | None, after: float) -> RequestRecord:
        return cut(1, first=first, after=after, outcome=Outcome.CANCELLED, reason=END_OF_RUN)

    assert share("e2e<2s", answered(0), ended(None, after=3.0)) == 0.5
    assert share("e2e<2s", answered(0), ended(None, after=1.0)) == 1
    assert share("ttft<2s", answered(0), ended(None, after=3.0)) == 0.5
    assert share("ttft<2s", answered(0), ended(0.1, after=3.0)) == 1
    assert share("ttft_scheduled<2s", answered(0), ended(2.5, after=3.0)) == 0.5


def test_a_request_held_back_to_the_end_misses_by_the_schedule() -> None:
    late = answered(0, delay=3.0, first=0.05)
    assert share("ttft<100ms", late) == 1
    assert share("ttft_scheduled<100ms", late) == 0


def test_gaps_are_bounded_by_the_longest() -> None:
    smooth, held = answered(0, gaps=[0.01] * 20), answered(1, gaps=[0.01] * 19 + [0.06])
    assert share("itl_chunk<50ms", smooth, held) == 0.5
    burst = answered(2, gaps=[0.06], tokens=[1, 6])
    assert share("itl_chunk<50ms", burst) == 0
    assert share("itl_token<50ms", burst) == 1


def test_an_answer_in_one_message_has_no_gap_that_was_too_long() -> None:
    assert share("ttft<1s,tpot<1ms,itl_chunk<1ms,second_token<1ms", answered(gaps=[])) == 1


def test_a_unary_answer_never_meets_an_slo_on_its_first_token() -> None:
    assert share("ttft<10s", answered(first=None, tail=0.1)) == 0
    assert share("e2e<10s", answered(first=None, tail=0.1)) == 1


def test_several_slos_stand_beside_each_other_and_each_once() -> None:
    slos = parse_slos(["ttft<100ms", "ttft < 100ms", "e2e<1s"])
    assert [slo.text for slo in slos] == ["ttft<100ms", "e2e<1s"]
    assert len(summarize([answered()], WHOLE, slos).goodput) == 2


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "not a comparison"),
        ("ttft", "not a comparison"),
        ("ttft<", "not a comparison"),
        ("<100ms", "not a comparison"),
        ("ttft<100ms,", "not a comparison"),
        ("ttft<-1ms", "not a comparison"),
        ("ttft<nan", "not a comparison"),
        ("ttft<infs", "not a comparison"),
        ("ttft<1e999s", "not a comparison"),
        ("ttft<1_0ms", "not a comparison"),
        ("ttft=100ms", "not a comparison"),
        ("ttft<100ms;e2e<1s", "not a comparison"),
        ("ttft<100 parsecs", "unknown unit"),
        ("ttft<100", "a time needs a unit"),
        ("ttft<5%", "a time needs a unit"),
        ("ttft>100ms", "latencies are bounded from above"),
        ("tftt<100ms", "unknown metric"),
        ("cancel<1ms", "unknown metric"),
        ("ttft.p99<1ms", "unknown metric"),
        ("x" * 5000, "not a comparison"),
        ("\u0661<1ms", "not a comparison"),
    ],
)
def test_a_bad_slo_is_refused_in_one_line(text: str, wrong: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_slos([text])
    message = str(refused.value)
    assert message.startswith(f"--slo: {wrong}; got ") and "; allowed " in message
    assert len(message) < 300 and "\n" not in message
