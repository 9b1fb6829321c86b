"""The few numbers that stand large at the top, each with what it is to be held against."""

from __future__ import annotations

from collections.abc import Iterator

from santacoder_client.loadtest.page.markup import Html, element, join
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.verdict import failed_share, load_in_words, recommended_load
from santacoder_client.loadtest.wording import amount, duration, interval, share

LATENCIES = (
    ("first token, p50", "ttft", "p50"),
    ("first token, p99", "ttft", "p99"),
    ("between tokens, p50", "itl_token", "p50"),
    ("whole answer, p50", "e2e", "p50"),
    ("whole answer, p99", "e2e", "p99"),
)


def tiles(result: Part) -> Html:
    """One tile for each number that the result has."""
    found = [*_latencies(result), *_rates(result.at("rates")), *_shares(result)]
    if not found:
        return Html("")
    made = [
        element("div", element("dt", name), element("dd", value, element("small", note)))
        for name, value, note in found
    ]
    has_latency = any(True for _ in _latencies(result))
    small = "The small numbers under latencies are 95 % intervals." if has_latency else ""
    words = f"{at_load(result)} {small}".strip()
    note = element("p", words, class_="note") if words else Html("")
    return join(element("dl", *made, class_="tiles"), note)


def at_load(result: Part) -> str:
    """Which of a sweep's loads the figures are of; empty for other results."""
    load = recommended_load(result)
    return f"At {load_in_words(result, load)}." if load is not None else ""


def _latencies(result: Part) -> Iterator[tuple[str, str, str]]:
    for name, metric, percentile in LATENCIES:
        part = result.at("figures", metric, "percentiles", percentile)
        value, low, high = (part.number(key) for key in ("value", "low", "high"))
        if value is not None:
            yield name, duration(value), interval(low, high)


def _rates(rates: Part) -> Iterator[tuple[str, str, str]]:
    wanted = (
        ("requests per second", "finished_per_second", "offered_per_second", "{} offered"),
        (
            "new tokens per second",
            "completion_tokens_per_second",
            "peak_completion_tokens_per_second",
            "{} in the best second",
        ),
    )
    for name, key, other, note in wanted:
        value, beside = rates.number(key), rates.number(other)
        if value is not None:
            yield name, amount(value), note.format(amount(beside)) if beside is not None else ""


def _shares(result: Part) -> Iterator[tuple[str, str, str]]:
    if (value := failed_share(result)) is not None:
        yield "failed", share(value), "of what the server ended"
    if (value := result.number("cached_share")) is not None:
        yield "prompt from the cache", share(value), "of its tokens"
