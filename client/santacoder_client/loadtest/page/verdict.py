"""The run in words: what a person would say who had read all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.sweep_charts import sorted_points
from santacoder_client.loadtest.wording import amount, count, duration, plural, share

OTHER_OUTCOMES = ("failed", "cancelled", "superseded", "unsent")
GOOD, WARN, BAD = "good", "warn", "bad"
LIMITS = {
    "server": "The server was the limit",
    "client": "The load tester itself was the limit, and the server may be faster than it looks",
    "neither": "Neither the server nor the load tester was at its limit",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    level: str
    headline: str
    sentences: tuple[str, ...]


def verdict_of(result: Part) -> Verdict:
    """The judgement that stands at the top."""
    sentences = tuple(_sentences(result))
    return Verdict(_level(result), _headline(result), sentences)


def sent_count(result: Part) -> float:
    """Requests that went out and came to an end of some kind."""
    names = ("ok", "failed", "cancelled", "superseded")
    return sum(result.number("outcomes", name) or 0.0 for name in names)


def failed_share(result: Part) -> float | None:
    """Of the requests that ended by themselves: who was cancelled could neither fail nor not."""
    ok, failed = (result.number("outcomes", name) or 0.0 for name in ("ok", "failed"))
    return failed / (ok + failed) if ok + failed else None


def _level(result: Part) -> str:
    missed = any(part.at("passed").value is False for part in result.parts("thresholds"))
    if missed or not _measured(result):
        return BAD
    sweep = result.at("sweep")
    doubtful = (
        (sweep and result.parts("goodput") and not sweep.at("best"))
        or result.flag("interrupted")
        or result.text("client", "verdict") == "client"
        or (result.number("outcomes", "failed") or 0) > 0
        or (result.number("outcomes", "unsent") or 0) > 0
    )
    return WARN if doubtful else GOOD


def _measured(result: Part) -> bool:
    if result.parts("sweep", "points"):
        return True
    return bool(result.number("outcomes", "ok"))


def _headline(result: Part) -> str:
    if not _measured(result):
        return _nothing(result)
    thresholds = result.parts("thresholds")
    missed = [part for part in thresholds if part.at("passed").value is False]
    if missed:
        return f"Missed {len(missed)} of {plural(len(thresholds), 'threshold')}"
    best = result.number("sweep", "best", "value")
    if best is not None:
        return f"Met the SLO up to {load_in_words(result, best)}"
    goodput = result.parts("goodput")
    if result.parts("sweep", "points"):
        return _without_best(result)
    if goodput:
        return f"Met {goodput[0].text('slo')} for {share(goodput[0].number('share'))} of requests"
    return f"{share(1 - (failed_share(result) or 0.0))} of requests answered"


def _without_best(result: Part) -> str:
    """The headline of a sweep that was given no SLO, or found no load that meets it."""
    goodput = result.parts("goodput")
    if goodput:
        return f"No load that was tried met {goodput[0].text('slo')}"
    return _knee(result) or "No knee was found among the loads that were tried"


def _nothing(result: Part) -> str:
    ends = [(name, result.number("outcomes", name) or 0.0) for name in OTHER_OUTCOMES]
    if any(number for _, number in ends):
        said = ", ".join(f"{count(number)} {name}" for name, number in ends if number)
        return f"No request was answered: {said}"
    return "Nothing was measured: no request ended within the steady window"


def _sentences(result: Part) -> Iterator[str]:
    if result.flag("interrupted"):
        yield "Interrupted before its end; this is what was measured until then."
    yield from _sweep(result)
    yield from _thresholds(result)
    yield from _served(result)
    yield from _goodput(result)
    yield from _limit(result)


def _sweep(result: Part) -> Iterator[str]:
    best, missed_at = (result.number("sweep", "best", key) for key in ("value", "missed_at"))
    if best is not None:
        missed = f"; {load_in_words(result, missed_at)} missed it" if missed_at is not None else ""
        yield f"{result.text('sweep', 'best', 'slo')} was met up to {amount(best)}{missed}."
    knee = _knee(result)
    if knee and knee != _headline(result):
        yield knee + "."
    at = recommended_load(result)
    if at is not None:
        yield f"What follows is of {load_in_words(result, at)}."


def recommended_load(result: Part) -> float | None:
    """The load of a sweep whose figures are the result's: the best, else the knee, else the least.

    None for other results.
    """
    for name in ("best", "knee"):
        value = result.number("sweep", name, "value")
        if value is not None:
            return value
    return next((value for value, _ in sorted_points(result)), None)


def _thresholds(result: Part) -> Iterator[str]:
    for part in result.parts("thresholds"):
        if part.at("passed").value is False:
            value = part.number("value")
            was = f"it was {threshold_value(part)}" if value is not None else "it has no value"
            yield f"{part.text('expression')} was missed: {was}."


def threshold_value(threshold: Part) -> str:
    """What was held against a threshold, in the threshold's own kind of unit."""
    value, expression = threshold.number("value"), threshold.text("expression")
    if expression.endswith("%"):
        return share(value)
    return duration(value) if expression.endswith("s") else amount(value)


def _served(result: Part) -> Iterator[str]:
    ok, sent = result.number("outcomes", "ok") or 0.0, sent_count(result)
    if not sent:
        return
    parts = [f"{count(ok)} of {plural(sent, 'request')} answered"]
    for name in OTHER_OUTCOMES:
        number = result.number("outcomes", name)
        if number:
            parts.append(f"{count(number)} {name}")
    yield ", ".join(parts) + "."
    first = result.at("figures", "ttft", "percentiles")
    p50, p99 = first.number("p50", "value"), first.number("p99", "value")
    if p50 is not None and p99 is not None:
        within = f"{duration(p50)}, 99 in 100 within {duration(p99)}"
        yield f"Half had their first token within {within}."


def _goodput(result: Part) -> Iterator[str]:
    thresholds = result.parts("thresholds")
    for place, part in enumerate(result.parts("goodput")):
        if place or thresholds:
            yield f"{share(part.number('share'))} of requests met {part.text('slo')}."


def _knee(result: Part) -> str:
    knee = result.number("sweep", "knee", "value")
    return f"The knee is at {load_in_words(result, knee)}" if knee is not None else ""


def load_in_words(result: Part, value: float) -> str:
    """A load of a sweep with its unit."""
    if result.text("sweep", "variable") == "concurrency":
        return f"{plural(value, 'request')} at once"
    return f"{amount(value)} {'request' if value == 1 else 'requests'} per second"


def _limit(result: Part) -> Iterator[str]:
    verdict = result.text("client", "verdict")
    if verdict in LIMITS:
        reasons = [part.text().rstrip(".") for part in result.parts("client", "reasons")]
        yield f"{LIMITS[verdict]}{': ' if reasons else ''}{'; '.join(reasons)}."
