"""How a group died is written down: all that is known, in few and small files for the owner."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from santacoder_shard.crash_reports import (
    MOST_REPORTS,
    REPORT_BYTES,
    CrashReports,
    Death,
    default_folder,
    stacks_path,
)
from santacoder_shard.log import make_logger

NOTE: dict[str, object] = {
    "epoch": 3,
    "rank": 1,
    "cause": "stream ended",
    "last_plan": 17,
    "last_step": 2,
    "request_ids": ["a", "b"],
}


def reports(folder: Path) -> CrashReports:
    return CrashReports(folder / "crashes", folder, make_logger("info"))


def test_a_report_has_cause_step_requests_and_stacks_for_its_owner_alone(tmp_path: Path) -> None:
    death = Death(3, ["rank 1 was killed by SIGSEGV"], NOTE, {"rank 0": "line 5", "rank 1": ""})
    path = reports(tmp_path).write(death)
    assert path is not None
    text = path.read_text()
    for line in (
        "cause: stream ended",
        "last_plan: 17",
        "last_step: 2",
        "request_ids: a b",
        "end: rank 1 was killed by SIGSEGV",
        "== stacks of rank 0\nline 5",
        "== stacks of rank 1\nnothing",
    ):
        assert line in text, line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_reports_are_small_and_the_oldest_go(tmp_path: Path) -> None:
    huge = {"rank 0": "é" * REPORT_BYTES, "rank 1": "x" * REPORT_BYTES}
    note = NOTE | {"request_ids": [f"request-{number}" for number in range(10_000)]}
    written = [
        reports(tmp_path).write(Death(number, ["gone"] * 2000, note, huge))
        for number in range(MOST_REPORTS + 5)
    ]
    kept = sorted((tmp_path / "crashes").iterdir())
    assert kept == written[-MOST_REPORTS:]
    assert all(path.stat().st_size <= REPORT_BYTES for path in kept)
    assert "== stacks of rank 1\nx" in kept[-1].read_text()


@pytest.mark.fault("D12")
def test_where_nothing_can_be_written_the_service_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crashes").write_text("a file in the folder's place")
    assert reports(tmp_path).write(Death(1, [])) is None
    assert "no crash report" in capfd.readouterr().err


def test_stacks_are_read_once(tmp_path: Path) -> None:
    stacks_path(tmp_path, 1, 4).write_text("here")
    assert [reports(tmp_path).stacks(1, 4) for _ in range(2)] == ["here", ""]


def test_they_go_where_such_things_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_folder() == Path("/state/santacoder-serving/crashes")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_folder() == Path.home() / ".local/state/santacoder-serving/crashes"
