"""The page as text: what it says, that it asks nobody, and that nothing in a result breaks it."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from client.loadtest.example_result import example_run, example_sweep

from santacoder_client.loadtest.page.document import page_of
from santacoder_client.loadtest.result import Outcomes, Result
from santacoder_client.loadtest.schema import to_json

RUN_CHARTS = {
    "latency-over-time",
    "requests-over-time",
    "tokens-over-time",
    "in-flight-over-time",
    "errors-over-time",
    "percentiles",
    "ttft-histogram",
    "e2e-histogram",
    "itl-token-histogram",
}
SWEEP_CHARTS = {"throughput-by-load", "latency-by-load", "goodput-by-load", "tokens-by-load"}
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> \' " & \x1b[31m \ud800'


class Outline(HTMLParser):
    """The elements of a page with their attributes, and all text that a reader would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def charts(self) -> set[str | None]:
        return {attributes.get("id") for attributes in self.attributes("figure")}

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def outline(result: Result) -> Outline:
    return Outline(page_of(to_json(result)))


def test_a_run_has_all_its_charts_and_a_sweep_has_its_own_too() -> None:
    assert outline(example_run()).charts() == RUN_CHARTS
    assert outline(example_sweep()).charts() == RUN_CHARTS | SWEEP_CHARTS


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    page = outline(example_run())
    links = [value for _, a in page.elements for k, value in a.items() if k in ("src", "href")]
    assert links == ["data:,"]
    [policy] = [a["content"] for a in page.attributes("meta") if "http-equiv" in a]
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy and "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_strings_of_others_are_text_wherever_they_stand() -> None:
    def hostile(value: object) -> object:
        if isinstance(value, str):
            return HOSTILE
        if isinstance(value, list):
            return [hostile(member) for member in value]
        if isinstance(value, dict):
            return {HOSTILE + name: hostile(v) for name, v in value.items()} | {
                name: hostile(member) for name, member in value.items()
            }
        return value

    text = page_of(hostile(to_json(example_sweep())))
    page = Outline(text)
    assert len(page.attributes("script")) == 1
    assert not page.attributes("img")
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    assert 'alert("x")' in page.text
    assert "\x1b" not in text
    text.encode()


def test_every_chart_has_a_name_and_a_description_in_words() -> None:
    page = outline(example_sweep())
    drawings = [a for a in page.attributes("svg") if a.get("role") == "img"]
    assert len(drawings) == len(RUN_CHARTS | SWEEP_CHARTS)
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for drawing in drawings:
        assert set((drawing["aria-labelledby"] or "").split()) <= set(identifiers)
    assert re.search(r"first token, p99 from [\d.]+.ms at \d+ s to [\d.]+.s at 20 s", page.text)


def test_the_verdict_names_what_was_missed_and_by_how_much() -> None:
    text = outline(example_run()).text
    assert "Missed 1 of 2 thresholds" in text
    assert "errors.share<1% was missed: it was 1.18 %" in text
    assert "92.8 % of requests met ttft<100ms,e2e<2s" in text
    assert "The server was the limit: the server's queue grew to 41 requests." in text


def test_without_thresholds_the_verdict_is_what_met_the_slo() -> None:
    text = outline(replace(example_run(), thresholds=())).text
    assert "Met ttft<100ms,e2e<2s for 92.8 % of requests" in text


def test_a_load_tester_at_its_limit_is_said_at_the_top() -> None:
    run = example_run()
    client = replace(run.client, verdict="client", reasons=("worker 0 was busy 99% of the time",))
    text = outline(replace(run, client=client)).text
    assert "The load tester itself was the limit" in text
    assert "worker 0 was busy 99% of the time" in text


def test_a_sweep_says_how_far_the_slo_held_and_where_the_knee_is() -> None:
    text = outline(replace(example_sweep(), thresholds=())).text
    assert "Met the SLO up to 44 requests per second" in text
    assert "48 requests per second missed it" in text
    assert "The knee is at 48 requests per second" in text
    assert "SLO ttft 100 ms" in text
    assert "SLO e2e 2 s" in text


def test_a_sweep_in_which_no_load_met_the_slo_says_so() -> None:
    sweep = example_sweep()
    assert sweep.sweep
    without = replace(sweep, thresholds=(), sweep=replace(sweep.sweep, best=None))
    text = outline(without).text
    assert "No load that was tried met ttft<100ms,e2e<2s" in text
    assert "What follows is of 48 requests per second" in text
    neither = replace(without, goodput=(), sweep=replace(sweep.sweep, best=None, knee=None))
    text = outline(neither).text
    assert "No knee was found among the loads that were tried" in text
    assert "What follows is of 1 request per second" in text


def test_an_interrupted_run_says_so() -> None:
    text = outline(replace(example_run(), interrupted=True)).text
    assert "Interrupted before its end" in text


def test_a_run_without_any_request_says_that_nothing_was_measured() -> None:
    empty = replace(
        example_run(),
        outcomes=Outcomes(),
        errors=(),
        figures={},
        goodput=(),
        timeline=(),
        histograms={},
        thresholds=(),
        cached_share=None,
    )
    page = outline(empty)
    assert "Nothing was measured" in page.text
    assert not page.charts()


def test_a_run_in_which_everything_was_taken_back_says_so() -> None:
    text = outline(replace(example_run(), outcomes=Outcomes(superseded=430), thresholds=())).text
    assert "No request was answered: 430 superseded" in text


def test_a_run_without_failures_says_so_in_place_of_the_chart() -> None:
    run = example_run()
    timeline = tuple(replace(each, failed=0) for each in run.timeline)
    outcomes = replace(run.outcomes, failed=0)
    page = outline(replace(run, timeline=timeline, outcomes=outcomes, errors=()))
    assert "errors-over-time" not in page.charts()
    assert "No request failed" in page.text


def test_a_percentile_that_the_sample_is_too_small_for_is_a_dash() -> None:
    run = example_run()
    assert all(figure.percentiles["p99.9"].value is None for figure in run.figures.values())
    assert "None" not in outline(run).text


def removals(value: Any, depth: int = 3) -> list[Callable[[Any], None]]:
    """Every way to make one value null, down to some depth."""

    def put(path: list[Any]) -> Callable[[Any], None]:
        def change(whole: Any) -> None:
            for step in path[:-1]:
                whole = whole[step]
            whole[path[-1]] = None

        return change

    def paths(part: Any, left: int) -> list[list[Any]]:
        if not left or not isinstance(part, dict | list):
            return []
        # The members of a list are alike; its first stands for all.
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))[:1]
        return [[key, *rest] for key in keys for rest in ([], *paths(part[key], left - 1))]

    return [put(path) for path in paths(value, depth)]


@pytest.mark.parametrize("name", ["figures", "timeline", "sweep", "other"])
def test_a_value_that_is_missing_anywhere_leaves_a_page(name: str) -> None:
    whole = to_json(example_sweep())
    whole["timeline"], whole["figures"] = (
        whole["timeline"][:3],
        {key: whole["figures"][key] for key in ("ttft", "e2e")},
    )
    for part in ("figures", "timeline", "sweep"):
        if part != name:
            whole[part] = {} if part == "figures" else [] if part == "timeline" else None
    for remove in removals(whole):
        changed = copy.deepcopy(whole)
        remove(changed)
        assert "<h1>" in page_of(changed)


@pytest.mark.parametrize("result", [None, {}, [], {"timeline": [{"at_seconds": 1e308}]}])
def test_what_is_hardly_a_result_leaves_a_page(result: object) -> None:
    assert "<h1>" in page_of(result)


def test_an_hour_has_no_more_points_than_a_screen_can_show() -> None:
    run = example_run()
    [second] = [each for each in run.timeline if each.at_seconds == 3.0]
    hour = tuple(replace(second, at_seconds=float(at)) for at in range(3600))
    peak = replace(second, at_seconds=1800.0, ttft_p99_ms=9_999.0)
    page = page_of(to_json(replace(run, timeline=(*hour[:1800], peak, *hour[1801:]))))
    assert len(page) < 1_000_000
    # What stands out is kept.
    assert "10\N{NO-BREAK SPACE}s at 1" in page
