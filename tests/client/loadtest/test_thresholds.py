"""What a run can be failed on, and that nothing measured is nothing passed."""

from __future__ import annotations

import pytest
from client.loadtest.records import answered, failed, unsent

from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.metrics import METRICS
from santacoder_client.loadtest.result import Rates, Summary, ThresholdResult
from santacoder_client.loadtest.slo import parse_slos
from santacoder_client.loadtest.thresholds import (
    NUMBERS,
    SHARES,
    TIMES,
    judge_thresholds,
    parse_thresholds,
)
from santacoder_client.loadtest.window import Window

SLOS = parse_slos(["ttft<150.5ms", "e2e<9s"])


def summary() -> Summary:
    """200 answers with first tokens after 1 to 200 ms, two failures, two never sent."""
    answers = [answered(i, due=i / 100, first=(i + 1) / 1000) for i in range(200)]
    rest = [failed(200), failed(201), unsent(202), unsent(203)]
    return summarize([*answers, *rest], Window.planned(0.0, 10.0, 0.0), SLOS)


def judged(text: str) -> ThresholdResult:
    (result,) = judge_thresholds(parse_thresholds([text], SLOS), summary())
    return result


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        ("ttft.p50<100ms", 100.5, False),
        ("ttft.p50<0.1006s", 100.5, True),
        ("ttft.p99 < 1s", 198.01, True),
        ("ttft.max<=200.1ms", 200, True),
        ("ttft.min>1500us", 1, False),
        ("ttft.mean<100.4ms", 100.5, False),
        ("ttft.count>=200", 200, True),
        ("errors.share<1%", 2 / 202, True),
        ("errors.share<0.5%", 2 / 202, False),
        ("errors.share<=0.01", 2 / 202, True),
        ("errors.count<2", 2, False),
        ("unsent.share<1%", 2 / 204, True),
        ("unsent.count<=2", 2, True),
        ("rates.offered_per_second>20", 20.4, True),
        ("rates.completion_tokens_per_second>20", 20, False),
        ("goodput.share>90%", 150 / 204, False),
        ("goodput.per_second>=14.9", 15, True),
        ("cached_share>=0%", 0, True),
    ],
)
def test_a_threshold_is_held_against_its_value(text: str, value: float, passed: bool) -> None:
    result = judged(text)
    assert result.expression == text.replace(" ", "")
    assert result.value == pytest.approx(value)
    assert result.passed is passed


@pytest.mark.parametrize(
    "text", ["ttft.p99.9<9s", "cancel.p50<9s", "cancel.max<9s", "tpot.mean<9s"]
)
def test_what_was_not_measured_is_missed(text: str) -> None:
    assert judged(text) == ThresholdResult(text, None, False)


def test_an_empty_run_passes_nothing_but_that_nothing_failed() -> None:
    nothing = summarize([], Window.planned(0.0, 10.0, 0.0), SLOS)
    texts = ["ttft.p50<9s", "errors.share<1%", "goodput.share>0%", "cached_share<=1"]
    assert not any(r.passed for r in judge_thresholds(parse_thresholds(texts, SLOS), nothing))
    (none_failed,) = judge_thresholds(parse_thresholds(["errors.count<1"], SLOS), nothing)
    assert none_failed.passed


def test_every_name_that_is_allowed_can_be_judged() -> None:
    texts = [f"{metric}.{time}<1s" for metric in METRICS for time in TIMES]
    texts += [f"{metric}.count>=0" for metric in METRICS]
    texts += [f"{name}<=100%" for name in SHARES] + [f"{name}>=0" for name in NUMBERS]
    assert len(judge_thresholds(parse_thresholds(texts, SLOS), summary())) == len(texts)
    assert all(f"rates.{name}" in NUMBERS for name in Rates.__slots__)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "not a comparison"),
        ("ttft.p99", "not a comparison"),
        ("ttft.p99<", "not a comparison"),
        ("ttft.p99<80", "a time needs a unit"),
        ("ttft.p99<80%", "a time needs a unit"),
        ("ttft.p98<80ms", "unknown metric"),
        ("ttft<80ms", "unknown metric"),
        ("rates.x<8", "unknown metric"),
        ("errors<8", "unknown metric"),
        ("errors.share<1ms", "not a share"),
        ("errors.share<1.5", "not a share"),
        ("goodput.share>101%", "not a share"),
        ("errors.count<1%", "no unit here"),
        ("rates.offered_per_second>1ms", "no unit here"),
        ("ttft.p99<1e400ms", "not a comparison"),
    ],
)
def test_a_bad_threshold_is_refused_in_one_line_that_names_what_is_allowed(
    text: str, wrong: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_thresholds([text], SLOS)
    message = str(refused.value)
    assert message.startswith(f"--fail-on: {wrong}; got ") and "; allowed " in message
    assert "\n" not in message
    if wrong == "unknown metric":
        assert "ttft" in message and "p99.9" in message and "errors.share" in message


def test_goodput_needs_an_slo_to_be_good_at() -> None:
    with pytest.raises(UsageError, match="goodput of what"):
        parse_thresholds(["goodput.share>99%"], ())
