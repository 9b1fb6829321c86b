"""`compare` on files as a person calls it: marks, warnings, exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client.loadtest.example_result import example_run, example_sweep
from client.loadtest.records import answered

from santacoder_client.loadtest.__main__ import main
from santacoder_client.loadtest.figures import summarize
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.result import Outcomes, Result
from santacoder_client.loadtest.result_file import save
from santacoder_client.loadtest.slo import parse_slos
from santacoder_client.loadtest.window import Window
from santacoder_client.loadtest.writers.requests import write_requests

Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    def call(before: Result, after: Result, *options: str) -> tuple[int, str, str]:
        paths = [str(tmp_path / name) for name in ("before.json", "after.json")]
        for path, result in zip(paths, (before, after), strict=True):
            save(result, path)
        capsys.readouterr()
        status = main(["compare", *paths, *options])
        return status, *capsys.readouterr()

    return call


def verdicts(text: str) -> dict[str, str]:
    return {each["name"]: each["verdict"] for each in json.loads(text)["differences"]}


def test_equal_results_differ_in_nothing(compare: Compare) -> None:
    status, out, err = compare(example_run(), example_run(), "--fail-on-regression", "0%")
    assert (status, err) == (0, "")
    assert "ttft.p99" in out and "worse" not in out and "better" not in out
    assert all(len(line) <= 80 for line in out.split("\n"))
    assert "change" in out and out.count(" noise") == len(out.split("\n")) - 3, "no cell is cut"


def test_a_slower_server_is_marked_metric_by_metric(compare: Compare) -> None:
    status, out, _ = compare(example_run(), example_run(1.3), "--json")
    found = verdicts(out)
    assert status == 0
    assert found["ttft.p50"] == found["e2e.p99"] == "worse"
    assert found["errors.share"] == "noise" and found["rates.finished_per_second"] == "noise"
    assert "dispatch_delay.p50" not in found and "ttft.p99.9" not in found
    _, back, _ = compare(example_run(1.3), example_run(), "--json")
    assert verdicts(back)["ttft.p50"] == "better"


def test_a_regression_ends_with_6_and_is_named(compare: Compare) -> None:
    slower = example_run(1.3)
    status, _, err = compare(example_run(), slower, "--fail-on-regression", "20%")
    assert status == 6
    assert "error: --fail-on-regression: ttft.p50 became worse; got +30.0%; allowed 20.0%" in err
    assert compare(example_run(), slower, "--fail-on-regression", "40%")[0] == 0
    assert compare(slower, example_run(), "--fail-on-regression", "1%")[0] == 0


def test_more_failures_are_worse(compare: Compare) -> None:
    failing = replace(example_run(), outcomes=Outcomes(ok=900, failed=290))
    _, out, _ = compare(example_run(), failing, "--json")
    assert verdicts(out)["errors.share"] == "worse"


def test_everything_else_that_differs_is_warned_of(compare: Compare) -> None:
    other = replace(
        example_run(),
        data=replace(example_run().data, sha256="cd" * 32),
        load=example_run().load | {"per_second": 50.0},
        environment=example_run().environment | {"cpu": "Zen 5", "git_revision": "1" * 40},
        window=Window(5.0, 20.0, 2.0, 5.0, 25.0),
        client=replace(example_run().client, verdict="client"),
        targets=(replace(example_run().targets[0], tls=True),),
        interrupted=True,
    )
    _, _, err = compare(example_run(), other)
    lines = err.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines] == [
        *("data", "load.per_second", "window", "targets", "environment.cpu", "after", "after")
    ]
    assert "warning: environment.cpu differs: Zen 4 before, Zen 5 after" in lines
    assert "warning: after: the load tester was the limit, not the server" in lines


def test_sweeps_are_compared_where_both_tried_the_same(compare: Compare) -> None:
    sweep = example_sweep()
    assert sweep.sweep is not None
    fewer = replace(sweep, sweep=replace(sweep.sweep, points=sweep.sweep.points[2:4]))
    status, out, _ = compare(sweep, fewer, "--json")
    found = verdicts(out)
    assert status == 0 and found["rate 16: ttft.p99"] == "noise"
    assert {name.split(":")[0] for name in found} == {"rate 16", "rate 32"}


def test_a_run_and_a_sweep_have_nothing_to_compare(compare: Compare) -> None:
    status, _, err = compare(example_run(), example_sweep())
    assert status == 2 and err.startswith("error: compare: one is a sweep")


def records(seed: int, slower: float) -> list[RequestRecord]:
    random = np.random.default_rng(seed)
    return [
        answered(i, due=i / 40, first=slower * float(random.lognormal(-3, 0.3)), gaps=[0.01] * 3)
        for i in range(1200)
    ]


def measured(found: list[RequestRecord]) -> Result:
    window = Window.planned(0.0, 30.0, 0.0)
    summary = summarize(found, window, parse_slos(["ttft<1s"]))
    parts = {name: getattr(summary, name) for name in type(summary).__slots__}
    changes: dict[str, Any] = {**parts, "window": window}
    return replace(example_run(), **changes)


def test_requests_are_drawn_where_they_are_given(compare: Compare, tmp_path: Path) -> None:
    early, late = records(1, 1.0), records(2, 1.1)
    paths = [str(tmp_path / "before.jsonl"), str(tmp_path / "after.jsonl")]
    write_requests(paths[0], early)
    write_requests(paths[1], late)
    before, after = measured(early), measured(late)
    _, plain, _ = compare(before, after, "--json")
    status, out, _ = compare(before, after, "--json", "--requests", *paths)
    assert status == 0
    assert verdicts(out)["ttft.p50"] == "worse"
    assert verdicts(out)["itl_token.p50"] == "noise"
    assert out != plain
    status, _, err = compare(before, after, "--requests", paths[0], str(tmp_path / "none"))
    assert (status, err.splitlines()[0][:7]) == (2, "error: ")
    write_requests(paths[0], early[:-3])
    status, _, err = compare(before, after, "--requests", *paths)
    assert status == 2 and "of another run" in err


def stalled(seed: int) -> list[RequestRecord]:
    """Requests of which one in forty is slow, all in the same second."""
    found = records(seed, 1.0)
    for record in found[600:630]:
        record.chunks = answered(due=record.scheduled_at, first=5.0).chunks
    return found


def test_one_stall_is_no_proof_of_a_worse_server(compare: Compare, tmp_path: Path) -> None:
    early, late = records(3, 1.0), stalled(4)
    paths = [str(tmp_path / "before.jsonl"), str(tmp_path / "after.jsonl")]
    write_requests(paths[0], early)
    write_requests(paths[1], late)
    before, after = measured(early), measured(late)
    for options in (("--json",), ("--json", "--requests", *paths)):
        _, out, _ = compare(before, after, *options)
        assert verdicts(out)["goodput ttft<1s"] == "noise", options


@pytest.mark.parametrize("text", ["5", "-5%", "nan%", "1e9%", "%", "5%%", "", "99999%", "\u0665%"])
def test_a_bad_percentage_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "a", "b", f"--fail-on-regression={text}"])
    assert ended.value.code == 2
    assert "--fail-on-regression: not a percentage; got" in capsys.readouterr().err


def test_a_missing_or_broken_result_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path / "none"), str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
