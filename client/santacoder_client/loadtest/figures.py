"""What the records of a run say: the summary. `metrics.py` defines the latencies, `window.py` what
counts, `percentiles.py` the percentiles, `slo.py` goodput. Knows no file and no screen.

Rates are per second of the window. `offered` are requests that were due in it, `dispatched` those
that were sent in it, `finished` whole answers that ended in it; tokens count when they arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from santacoder_client.loadtest.columns import OUTCOMES, Columns, Floats, Integers
from santacoder_client.loadtest.metrics import METRICS, first_token_at, gaps_of, request_metrics
from santacoder_client.loadtest.percentiles import BATCH_COUNT, figure_of
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.result import (
    ErrorCount,
    Histogram,
    Outcomes,
    Rates,
    Summary,
)
from santacoder_client.loadtest.slo import Slo, goodputs
from santacoder_client.loadtest.timeline import timeline_of, token_arrivals, tokens_per_second
from santacoder_client.loadtest.window import Window

HISTOGRAM_METRICS = ("ttft", "e2e", "itl_token")
BINS_PER_DECADE = 24
"""Every run has the same edges, about 10 % apart, so that two can be laid over each other."""
LEAST_MS = 0.001

Booleans = npt.NDArray[np.bool_]


def summarize(
    records: Iterable[RequestRecord] | Columns, window: Window, slos: Sequence[Slo] = ()
) -> Summary:
    """The summary of a run: of the requests that were due in the window."""
    columns = records if isinstance(records, Columns) else Columns.of(records)
    due = columns.times("scheduled_at")
    inside = (due >= window.begin) & (due < window.end)
    samples = samples_ms(columns, inside)
    batches = batches_of(due, window)
    figures = {name: figure_of(values, batches[of]) for name, (values, of) in samples.items()}
    return Summary(
        outcomes=_outcomes(columns, inside),
        errors=_errors(columns, inside),
        figures={name: figure for name, figure in figures.items() if figure is not None},
        rates=_rates(columns, inside, window),
        cached_share=_cached_share(columns, inside),
        goodput=goodputs(columns, inside, window.seconds, slos),
        timeline=timeline_of(columns),
        histograms=_histograms({name: values for name, (values, _) in samples.items()}),
    )


def samples_ms(columns: Columns, inside: Booleans) -> dict[str, tuple[Floats, Integers]]:
    """Every metric's values, and whose each is, as a place in the columns."""
    samples = {}
    for name, seconds in request_metrics(columns).items():
        chosen = np.flatnonzero(inside & ~np.isnan(seconds))
        samples[name] = (1000 * seconds[chosen], chosen)
    gaps = gaps_of(columns)
    counted = inside[gaps.requests]
    whole_ms, requests = 1000 * gaps.seconds[counted], gaps.requests[counted]
    tokens = gaps.tokens[counted]
    samples["itl_chunk"] = (whole_ms, requests)
    samples["itl_token"] = (np.repeat(whole_ms / tokens, tokens), np.repeat(requests, tokens))
    return {name: samples[name] for name in METRICS}


def batches_of(due: Floats, window: Window) -> Integers:
    """The stretch of the window in which each request was due; without meaning outside of it."""
    if not window.seconds:
        return np.zeros(len(due), dtype=np.int64)
    stretches = np.floor((due - window.begin) / window.seconds * BATCH_COUNT)
    return np.clip(stretches, 0, BATCH_COUNT - 1).astype(np.int64)


def _outcomes(columns: Columns, inside: Booleans) -> Outcomes:
    counts = {each.value: int((inside & columns.ended_as(each)).sum()) for each in OUTCOMES}
    return Outcomes(**counts)


def _errors(columns: Columns, inside: Booleans) -> tuple[ErrorCount, ...]:
    """Failures by status and reason, the most frequent first."""
    counts = np.bincount(columns.errors[inside], minlength=len(columns.error_kinds))
    errors = [
        ErrorCount(status, reason, int(counts[number]), columns.error_examples[number])
        for (status, reason, outcome), number in columns.error_kinds.items()
        if outcome == Outcome.FAILED and counts[number]
    ]
    return tuple(sorted(errors, key=lambda error: (-error.count, error.status, error.reason)))


def _rates(columns: Columns, inside: Booleans, window: Window) -> Rates:
    if not window.seconds:
        return Rates(None, None, None, None, None, None)

    def per_second(times: Floats, weights: Integers | None = None) -> float:
        chosen = (times >= window.begin) & (times < window.end)
        total = chosen.sum() if weights is None else weights[chosen].sum()
        return float(total) / window.seconds

    ok, ended = columns.ended_as(Outcome.OK), columns.times("finished_at")
    first = first_token_at(columns)
    read_at = np.where(np.isnan(first) & ok, ended, first)
    return Rates(
        offered_per_second=float(inside.sum()) / window.seconds,
        dispatched_per_second=per_second(columns.times("dispatched_at")),
        finished_per_second=per_second(ended[ok]),
        completion_tokens_per_second=per_second(*token_arrivals(columns)),
        peak_completion_tokens_per_second=_peak(columns, window),
        prompt_tokens_per_second=per_second(read_at, columns.counts("prompt_token_count")),
    )


def _peak(columns: Columns, window: Window) -> float | None:
    """Tokens in the best whole second; None if the window holds none."""
    seconds = tokens_per_second(columns, window.begin, math.floor(window.seconds))
    return float(seconds.max()) if len(seconds) else None


def _cached_share(columns: Columns, inside: Booleans) -> float | None:
    """The part of the prompts' tokens that the server did not have to compute."""
    prompt, cached = (
        int(columns.counts(name)[inside].sum())
        for name in ("prompt_token_count", "cached_token_count")
    )
    return min(1.0, cached / prompt) if prompt else None


def _histograms(samples: dict[str, Floats]) -> dict[str, Histogram]:
    return {name: _histogram(samples[name]) for name in HISTOGRAM_METRICS if len(samples[name])}


def _histogram(values_ms: Floats) -> Histogram:
    """Counts on a logarithmic grid; what is below its begin is in the first bin."""
    places = np.floor(np.log10(np.maximum(values_ms, LEAST_MS)) * BINS_PER_DECADE).astype(np.int64)
    first, last = int(places.min()), int(places.max())
    edges = [10 ** (place / BINS_PER_DECADE) for place in range(first, last + 2)]
    if float(values_ms.min()) < LEAST_MS:
        edges[0] = 0.0
    counts = np.bincount(places - first, minlength=last - first + 1)
    return Histogram(tuple(edges), tuple(int(count) for count in counts))
