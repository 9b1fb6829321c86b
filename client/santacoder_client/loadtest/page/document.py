"""The whole page: verdict, key numbers, charts, tables. Makes text; writes no file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib.resources import files

from santacoder_client.loadtest.page import tables
from santacoder_client.loadtest.page.distribution_charts import distribution_plots
from santacoder_client.loadtest.page.drawing import figure
from santacoder_client.loadtest.page.key_numbers import at_load, tiles
from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.plot import Plot
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.sweep_charts import sweep_plots
from santacoder_client.loadtest.page.time_charts import time_plots
from santacoder_client.loadtest.page.verdict import Verdict, failed_share, verdict_of
from santacoder_client.loadtest.wording import duration

SIGNS = {"good": "\N{CHECK MARK}", "warn": "!", "bad": "\N{MULTIPLICATION X}"}


def page_of(result: object) -> str:
    """The page of a result as JSON has it. It asks nothing of any other machine."""
    part = Part(result)
    verdict = verdict_of(part)
    script = _asset("page.js")
    head = element(
        "head",
        Html('<meta charset="utf-8"/>'),
        _policy(script),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{verdict.headline} \N{EN DASH} {_name(part)}"),
        element("link", rel="icon", href="data:,"),
        Html(f"<style>{_asset('page.css')}</style>"),
    )
    body = element("body", _header(part, verdict), _main(part), Html(f"<script>{script}</script>"))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> Html:
    """Nothing is loaded, and the only script that runs is the page's own, known by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>')


def _name(result: Part) -> str:
    addresses = [part.text("address") for part in result.parts("targets")]
    verb = result.text("verb")
    kind = {"sweep": "Load sweep", "replay": "Replayed load"}.get(verb, "Load test")
    return f"{kind} of {', '.join(addresses)}" if addresses else kind


def _header(result: Part, verdict: Verdict) -> Html:
    return element(
        "header",
        element("p", _name(result), class_="over"),
        element(
            "h1",
            element(
                "span", SIGNS[verdict.level], class_=f"sign {verdict.level}", aria_hidden="true"
            ),
            element("span", verdict.headline),
        ),
        element("ul", *(element("li", s) for s in verdict.sentences), class_="verdict"),
        element("p", _when(result), class_="when"),
        tiles(result),
    )


def _when(result: Part) -> str:
    steady = result.number("window", "steady_seconds")
    load, data = (result.text(name, key) for name, key in (("load", "model"), ("data", "name")))
    parts = [f"{load} load" if load else "", f"{data} data" if data else "", _started(result)]
    if steady is not None:
        parts.insert(0, f"{duration(1000 * steady)} measured")
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def _started(result: Part) -> str:
    """When it began, without its parts of seconds."""
    try:
        return f"{datetime.fromisoformat(result.text('started_at')):%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return result.text("started_at")


def _main(result: Part) -> Html:
    return element(
        "main",
        _charts("Load and answer", sweep_plots(result)),
        _charts("Over time", time_plots(result), at_load(result)),
        _no_failures(result),
        _charts("Distribution", distribution_plots(result), at_load(result)),
        element("section", element("h2", "All figures"), _note(result), *_figures(result)),
        element(
            "section",
            element("h2", "How it was run"),
            tables.run_table(result),
            tables.environment_table(result),
            *tables.model_tables(result),
            *tables.server_tables(result),
        ),
    )


def _charts(title: str, plots: Sequence[Plot], note: str = "") -> Html:
    if not plots:
        return Html("")
    grid = element("div", *(figure(plot) for plot in _without_hole(plots)), class_="grid")
    said = element("p", note, class_="note") if note else Html("")
    return element("section", element("h2", title), said, grid)


def _without_hole(plots: Sequence[Plot]) -> list[Plot]:
    """Two narrow charts make a row; a last one alone gets the whole of it."""
    narrow = [plot for plot in plots if not plot.wide]
    alone = narrow[-1] if len(narrow) % 2 else None
    return [replace(plot, wide=True) if plot is alone else plot for plot in plots]


def _no_failures(result: Part) -> Html:
    if failed_share(result) == 0:
        return element("p", "No request failed, so there is no chart of failures.", class_="note")
    return Html("")


def _note(result: Part) -> Html:
    if not result.items("figures"):
        return Html("")
    words = (
        "Under each percentile is its 95 % interval: a difference within it may be chance. "
        "Failed requests are in no latency, and those that the load cut short in no whole answer."
    )
    return element("p", words, class_="note")


def _figures(result: Part) -> list[Html]:
    return [
        tables.thresholds_table(result),
        tables.sweep_table(result),
        tables.figures_table(result),
        tables.goodput_table(result),
        tables.rates_table(result),
        tables.errors_table(result),
    ]
