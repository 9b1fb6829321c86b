"""`sweep` as a person calls it, and what is kept of one that does not come to its end."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from client.loadtest.example_result import NEITHER
from client.loadtest.records import answered, failed

from santacoder_client.loadtest import sweeping
from santacoder_client.loadtest.__main__ import main
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.knee import Search
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.measure import Measured
from santacoder_client.loadtest.result_file import load as load_result
from santacoder_client.loadtest.slo import parse_slos
from santacoder_client.loadtest.sweeping import Sweep, Swept, carry_out_sweep, sweep_result
from santacoder_client.loadtest.window import Window
from santacoder_client.testing import Answer, FakeRouter

SHORT = "--warm-up 0s --duration 1500ms --cool-down 0s --workers 1 --quiet"


def test_a_sweep_leaves_a_result_with_its_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {kind: str(tmp_path / f"r.{kind}") for kind in ("json", "html", "csv", "junit")}
    files = " ".join(f"--{kind} {path}" for kind, path in paths.items() if kind != "json")
    command = (
        f"{SHORT} --slo 'e2e<60s' --fail-on 'errors.share<50%' --output {paths['json']} {files}"
    )
    with FakeRouter(Answer(("a", "b"))) as router:
        argv = ["sweep", "--target", router.target, "--concurrencies", "1,2", "--halvings", "0"]
        assert main([*argv, *shlex.split(command)]) == 0
        salts = {request.cache_salt for request in router.requests}
        ids = [request.request_id for request in router.requests]
    result = load_result(paths["json"])
    assert result.verb == "sweep" and result.sweep is not None
    assert result.sweep.variable == "concurrency"
    assert [point.value for point in result.sweep.points] == [1, 2]
    assert all(point.result.outcomes.ok > 0 for point in result.sweep.points)
    assert result.sweep.best is not None and result.sweep.best.value == 2
    assert result.load["concurrency"] == 2, "the summary is that of the best"
    assert result.thresholds[0].passed
    assert len(salts) == 2, "no load finds its prompts in the cache"
    assert len(set(ids)) == len(ids)
    assert "at once" in capsys.readouterr().out
    assert all(Path(path).stat().st_size for path in paths.values())


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("", "one of the arguments --rates --rate-range --concurrencies is required"),
        ("--rates 1,2 --concurrencies 1,2", "not allowed with argument"),
        ("--rates 2,1", "--rates: not a rising list; got '2,1'"),
        ("--rates 1,1", "--rates: not a rising list"),
        ("--rates 0,1", "--rates: not a number in range; got '0'"),
        ("--rates 1,nan", "--rates: not a number in range; got 'nan'"),
        ("--rates 1,", "--rates: not a number in range; got ''"),
        ("--rates " + ",".join(map(str, range(1, 99))), "--rates: not a rising list"),
        ("--rate-range 1:2", "--rate-range: not a range"),
        ("--rate-range 2:1:3", "--rate-range: not a rising range"),
        ("--rate-range 1:2:1", "--rate-range: not a whole number in range"),
        ("--rate-range 1:1e9:3", "--rate-range: not a number in range"),
        ("--concurrencies 1.5", "--concurrencies: not a whole number in range"),
        ("--concurrencies 0,1", "--concurrencies: not a whole number in range"),
        ("--concurrencies 1,2 --arrival constant", "--arrival: not for this load"),
        ("--rates 1 --slo-share 101%", "--slo-share: not a percentage"),
        ("--rates 1 --slo 'ttft<1'", "--slo: a time needs a unit"),
        ("--rates 1 --halvings -1", "--halvings: "),
        ("--rates 1 --requests-output x", "--requests-output: not of a sweep"),
        ("--rates 1 --fail-on 'goodput.share>1%'", "--fail-on: goodput of what"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["sweep", *shlex.split(arguments)])
    except SystemExit as ended:
        status = int(str(ended.code))
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("error: ") and wrong in err
    assert len(err.splitlines()) <= 2


def measured(load: float, **changes: Any) -> Measured:
    """As if a server that can do 50 a second had been asked."""
    count = round(load * 10)
    records = [answered(i, due=i / load, first=0.01 + max(0, i - 500) / 50) for i in range(count)]
    plain = Measured(
        load=Load(per_second=load),
        started_at="2026-11-24T01:00:00.000+00:00",
        window=Window.planned(0.0, 10.0, 0.0),
        client=NEITHER,
        records=records,
    )
    return replace(plain, **changes)


def sweep_over(*loads: float) -> Sweep:
    return Sweep(
        search=Search("rate", loads, halvings=0),
        load_at=lambda value: Load(per_second=value),
        slos=parse_slos(["ttft<1s"]),
        share=0.99,
        worker_count=1,
        quiet=True,
    )


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Swept]:
    """A sweep over 10, 20, 40 in which measurement `number` ends otherwise."""

    def sweep(number: int, ends: BaseException | dict[str, Any]) -> Swept:
        def of_point(ready: object, plan: Sweep, value: float, place: int) -> Measured:
            if place != number:
                return measured(value)
            if isinstance(ends, BaseException):
                raise ends
            return measured(value, **ends)

        monkeypatch.setattr(sweeping, "_measure", of_point)
        nobody: Any = None
        return carry_out_sweep(nobody, sweep_over(10.0, 20.0, 40.0))

    return sweep


def test_what_was_measured_before_an_interruption_is_kept(swept: Callable[..., Swept]) -> None:
    for ends in (KeyboardInterrupt(), {"interrupted": True}):
        found = swept(1, ends)
        assert found.interrupted and [each.load for each in found.seen] == [10]
    assert swept(0, {"interrupted": True}).seen, "half a measurement is better than none"
    with pytest.raises(KeyboardInterrupt):
        swept(0, KeyboardInterrupt())


def test_what_was_measured_before_the_server_died_is_kept(swept: Callable[..., Swept]) -> None:
    for ends in (Unreachable("gone"), {"failures": ["gone"]}):
        found = swept(2, ends)
        assert found.failures == ["gone"] and [each.load for each in found.seen] == [10, 20]
        assert not found.interrupted
    with pytest.raises(Unreachable):
        swept(0, Unreachable("gone"))


def test_a_load_tester_at_its_limit_is_warned_of(swept: Callable[..., Swept]) -> None:
    found = swept(1, {"client": replace(NEITHER, verdict="client")})
    assert found.warnings == ["rate 20: the load tester was the limit, not the server"]
    assert [each.load for each in found.seen] == [10, 20, 40], "one bad moment ends no sweep"


def test_no_records_are_kept(swept: Callable[..., Swept]) -> None:
    assert all(not each.measured.records for each in swept(9, {}).tried)


def test_the_best_point_is_the_one_that_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_measure", lambda ready, sweep, value, place: measured(value))
    plan, nobody = sweep_over(10.0, 40.0, 100.0, 200.0, 400.0), None
    found = carry_out_sweep(nobody, plan)  # type: ignore[arg-type]
    result = sweep_result(found, plan)
    assert [point.value for point in result.points] == [10, 40, 100]
    assert result.best is not None
    assert (result.best.value, result.best.missed_at, result.best.slo) == (40, 100, "ttft<1s")
    assert result.best.share == 1 and found.recommended().seen.load == 40
    assert result.knee is not None and result.knee.value == 40


def test_a_sweep_that_no_load_suited_has_no_best(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [failed(i, due=i / 10) for i in range(100)]
    monkeypatch.setattr(
        sweeping, "_measure", lambda ready, sweep, value, place: measured(value, records=broken)
    )
    plan, nobody = sweep_over(10.0, 20.0), None
    found = carry_out_sweep(nobody, plan)  # type: ignore[arg-type]
    assert sweep_result(found, plan).best is None
    assert found.recommended().seen.load == 10
