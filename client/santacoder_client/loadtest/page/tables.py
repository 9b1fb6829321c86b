"""The figures as tables, with their intervals; what was run, and where."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.sweep_charts import sorted_points
from santacoder_client.loadtest.page.verdict import threshold_value
from santacoder_client.loadtest.wording import (
    ABSENT,
    amount,
    count,
    duration,
    figure,
    interval,
    share,
)

METRICS = {
    "ttft": "first token, from when it was sent",
    "ttft_scheduled": "first token, from when it was due",
    "second_token": "second token, after the first",
    "itl_token": "between tokens",
    "itl_chunk": "between messages",
    "tpot": "each token after the first, mean of a request",
    "e2e": "whole answer, from when it was sent",
    "e2e_scheduled": "whole answer, from when it was due",
    "queue": "waiting in the server",
    "dispatch_delay": "sent later than due",
    "cancel": "from cancel to its end",
}
RATES = {
    "offered_per_second": "requests offered per second",
    "dispatched_per_second": "requests sent per second",
    "finished_per_second": "requests answered per second",
    "completion_tokens_per_second": "new tokens per second",
    "peak_completion_tokens_per_second": "new tokens in the best second",
    "prompt_tokens_per_second": "prompt tokens per second",
}


def figures_table(result: Part) -> Html:
    """Every latency with its percentiles and their 95 % intervals."""
    figures = result.items("figures")
    names = list(dict.fromkeys(n for _, f in figures for n, _ in f.items("percentiles")))
    head = ["", *names, "most", "least", "mean", "number"]
    rows = [_figure_row(metric, part, names) for metric, part in figures]
    return table("Latencies", head, rows)


def _figure_row(metric: str, part: Part, names: Sequence[str]) -> list[str]:
    unit = part.text("unit")
    return [
        element("span", METRICS.get(metric, metric), element("code", metric)),
        # What one looks for stands first: a phone shows only the first columns at once.
        *(_with_interval(part.at("percentiles", name), unit) for name in names),
        *(figure(part.number(name), unit) for name in ("max", "min", "mean")),
        count(part.number("count")),
    ]


def _with_interval(percentile: Part, unit: str) -> Html:
    value = figure(percentile.number("value"), unit)
    words = interval(percentile.number("low"), percentile.number("high"), unit)
    return element("span", value, element("small", words) if words else "")


def rates_table(result: Part) -> Html:
    """Requests and tokens per second, and shares."""
    rows = [[RATES.get(name, name), amount(part.number())] for name, part in result.items("rates")]
    if result.number("cached_share") is not None:
        rows.append(["prompt tokens from the cache", share(result.number("cached_share"))])
    rows += [[f"requests: {name}", count(part.number())] for name, part in result.items("outcomes")]
    return table("Rates and outcomes", ["", "value"], rows)


def goodput_table(result: Part) -> Html:
    rows = [
        [part.text("slo"), share(part.number("share")), amount(part.number("per_second"))]
        for part in result.parts("goodput")
    ]
    return table("Goodput: requests that met the SLO", ["SLO", "share", "per second"], rows)


def thresholds_table(result: Part) -> Html:
    rows = [
        [
            part.text("expression"),
            threshold_value(part),
            element("b", "passed", class_="good")
            if part.flag("passed")
            else element("b", "missed", class_="bad"),
        ]
        for part in result.parts("thresholds")
    ]
    return table("Thresholds", ["asked for", "was", ""], rows)


def errors_table(result: Part) -> Html:
    """Why requests failed."""
    rows = [
        [
            element("span", part.text("status"), element("small", part.text("reason"))),
            count(part.number("count")),
            part.text("example"),
        ]
        for part in result.parts("errors")
    ]
    head = ["status and reason", "number", "for example"]
    return table("Failures by reason", head, rows, kind="words")


def sweep_table(result: Part) -> Html:
    """A row for each load that the sweep tried."""
    variable = result.text("sweep", "variable") or "load"
    head = [
        variable,
        "answered/s",
        "tokens/s",
        "first token p50",
        "p99",
        "whole answer p99",
        "met SLO",
        "failed",
        "limit",
    ]
    rows = [
        [
            amount(value),
            amount(point.number("rates", "finished_per_second")),
            amount(point.number("rates", "completion_tokens_per_second")),
            *(
                duration(point.number("figures", metric, "percentiles", at, "value"))
                for metric, at in (("ttft", "p50"), ("ttft", "p99"), ("e2e", "p99"))
            ),
            share(next((p.number("share") for p in point.parts("goodput")), None)),
            count(point.number("outcomes", "failed")),
            point.text("client", "verdict") or ABSENT,
        ]
        for value, point in sorted_points(result)
    ]
    return table("Every load of the sweep", head, rows)


def server_tables(result: Part) -> list[Html]:
    """What the server counted itself, where its metrics could be read."""
    return [_server_table(part) for part in result.parts("server_metrics")]


def _server_table(part: Part) -> Html:
    names = list(dict.fromkeys(n for w in ("before", "after", "delta") for n, _ in part.items(w)))
    rows = [
        [
            element("code", name),
            *(amount(part.number(w, name)) for w in ("before", "after", "delta")),
        ]
        for name in names
    ]
    head = ["metric", "before", "after", "difference"]
    return table(f"The server's own metrics: {part.text('target')}", head, rows)


def run_table(result: Part) -> Html:
    """What was run: enough to do it again."""
    return table("What was run", [], list(_run_rows(result)), kind="plain")


def _run_rows(result: Part) -> Iterator[list[str]]:
    words = [part.text() for part in result.parts("command")]
    if words:
        program = [] if words[0].startswith("santacoder-load") else ["santacoder-load"]
        yield ["command", element("code", shlex.join([*program, *words]))]
    yield ["started", result.text("started_at") or ABSENT]
    for target in result.parts("targets"):
        yield ["target", _target(target)]
    yield ["data", result.text("data", "name") or ABSENT]
    yield ["data sha256", element("code", result.text("data", "sha256") or ABSENT)]
    for name, value in result.at("data", "options").leaves("data "):
        yield [name, value]
    for name, value in result.at("load").leaves("load "):
        yield [name.replace("_", " "), value]
    for name, value in result.at("window").leaves():
        yield [name.replace("_", " "), value]


def _target(target: Part) -> str:
    tls = "with TLS" if target.flag("tls") else "without TLS"
    words = (target.text("address"), target.text("mode"), tls, target.text("model", "name"))
    return ", ".join(word for word in words if word)


def model_tables(result: Part) -> list[Html]:
    """What each target says that it serves."""
    return [
        table(
            f"What was served: {target.text('address')}",
            [],
            [[name.replace("_", " "), value] for name, value in target.at("model").leaves()],
            kind="plain",
        )
        for target in result.parts("targets")
    ]


def environment_table(result: Part) -> Html:
    rows: list[list[str]] = [["santacoder-load", result.text("tool_version") or ABSENT]]
    rows += [[name.replace("_", " "), value] for name, value in result.at("environment").leaves()]
    for name, part in result.items("client"):
        if name not in ("verdict", "reasons"):
            rows.append([f"load tester: {name.replace('_', ' ')}", part.text() or ABSENT])
    return table("Where it was run", [], rows, kind="plain")


def table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers"
) -> Html:
    """A table that scrolls in itself where the window is narrow; nothing if it has no rows."""
    if not rows:
        return Html("")
    heading = element("thead", element("tr", *(element("th", h, scope="col") for h in head)))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", c) for c in row[1:]))
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", title),
        heading if head else Html(""),
        element("tbody", *body),
        class_=kind,
    )
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=title)
