"""Services of real processes that need an arming, or a machine, of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from faults.history import Judge, What, truth_of
from faults.plots import FIRST_MARKER_ID, Plot
from faults.stage import KINDS, perform, staged

from santacoder_shard import launch
from santacoder_shard.fault_points import FaultPoint

Record = Callable[[str, object], None]
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
ROOM_BYTES = 512 << 20


def plot_of(at: str, action: str, **settings: object) -> Plot:
    fault = FaultPoint(at, action, token_id=FIRST_MARKER_ID)
    return Plot("", (), replace(fault, **settings), 0.0, "")  # type: ignore[arg-type]


@pytest.mark.fault("S18")
@pytest.mark.long
def test_a_request_that_crashes_its_rank_fails_alone(
    fault_model: Path, stage_folder: Path, record_property: Record
) -> None:
    """In every life in which it runs, at its first step after the prompt."""
    poison = plot_of("decode", "segv", repeats=True)
    with staged(fault_model, stage_folder, [poison], "--max-running=8", marks=False) as stage:
        history = stage.ask_all(poison)
        stage.wait_at_rest()
        guilty, *others = KINDS
        ends = [entry for entry in history if entry.request == guilty]
        assert (ends[-1].what, ends[-1].reason) == (What.FAILED, "POISON_REQUEST")
        deaths = stage.service.metric("santacoder_router_group_failures_total")
        # Six choices ran at once: two deaths, and three halvings.
        assert 2 <= deaths <= 5
        truth = truth_of(stage.ask(others, poison.fault.token_id))
        told = [entry for entry in history if entry.request != guilty]
        assert Judge(truth).hear(told) == []
        name = "santacoder_router_sequence_faults_total"
        assert stage.service.metric(name, kind="poison") == 1
    record_property("figure", f"poison request found after {deaths:.0f} deaths, others unharmed")


@pytest.mark.fault("S17")
@pytest.mark.long
def test_a_group_that_dies_at_every_start_is_given_up_and_everybody_told_at_once(
    fault_model: Path, stage_folder: Path, record_property: Record
) -> None:
    """Its first life works; those that follow do not come up, each later than the one before."""
    first = plot_of("decode", "kill", nth=4, epoch=1)
    starts = [plot_of("start", "kill", token_id=-1, epoch=epoch) for epoch in range(2, 9)]
    armed = [first, *starts]
    with staged(fault_model, stage_folder, armed, marks=False, stops=False) as stage:
        history = stage.ask_all(first)
        failures = [entry for entry in history if entry.what is What.FAILED]
        assert {entry.reason for entry in failures} == {"SHARD_LOST"}
        assert {entry.request for entry in failures} == set(KINDS)
        given_up_at = stage.service.said_at("the group does not start again")
        last_seconds = max(entry.at for entry in failures) - given_up_at
        code, _, err = stage.service.end()
        assert code == 1
        delays = [line.rpartition("=")[2] for line in err.splitlines() if "delay_seconds" in line]
        assert delays == ["0.0", "0.5", "1.0", "2.0", "4.0", "8.0"]
    record_property("figure", f"nobody can recover: the last is told after {last_seconds:.2f} s")
    # Ten times that tells it from the minute for which a router waits for a group.
    assert last_seconds < 6.0


@pytest.mark.fault("S12")
@pytest.mark.long
def test_a_slow_rank_slows_the_group_and_is_not_killed(
    fault_model: Path, stage_folder: Path
) -> None:
    slow = plot_of("forward", "slow", rank=1, repeats=True, seconds=0.02)
    with staged(fault_model, stage_folder, [slow], "--tp=2", marks=False) as stage:
        history = stage.ask_all(slow)
        assert Judge(truth_of(stage.ask_all(slow))).hear(history) == []
        assert stage.service.metric("santacoder_router_group_failures_total") == 0


@contextmanager
def memory_group(pid: int) -> Iterator[Path]:
    """A control group of a process with little more room than it has taken already."""
    group = MEMORY_GROUPS / f"santacoder-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs a memory control group (v1) that can be made: {error.strerror}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(ROOM_BYTES))
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        deadline = time.monotonic() + 60.0
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


@pytest.mark.fault("S5")
@pytest.mark.long
def test_a_rank_that_the_kernel_kills_for_its_memory_is_replaced(
    fault_model: Path, stage_folder: Path
) -> None:
    hungry = plot_of("decode", "allocate", nth=4)
    with staged(fault_model, stage_folder, [hungry]) as stage:
        with memory_group(stage.service.children()["rank 0"]) as group:
            perform(stage, hungry)
            assert "oom_kill 1" in (group / "memory.oom_control").read_text()
        assert "end: rank 0 was killed by SIGKILL" in stage.report()


@pytest.mark.fault("S19")
@pytest.mark.long
def test_ranks_leave_with_a_router_that_was_killed(
    fault_model: Path, stage_folder: Path, record_property: Record
) -> None:
    with staged(fault_model, stage_folder, [], "--tp=2", stops=False) as stage:
        children = stage.service.children()
        killed_at = time.monotonic()
        os.kill(children["router"], signal.SIGKILL)
        for name in ("rank 0", "rank 1"):
            while Path(f"/proc/{children[name]}").exists():
                assert time.monotonic() < killed_at + 60.0
                time.sleep(0.01)
        seconds = time.monotonic() - killed_at
        assert stage.service.end()[0] == 70
    record_property("figure", f"ranks gone {seconds:.2f} s after their router was killed")


WRONG = {
    "not JSON": "[",
    "no such point": '[{"at": "lunch", "action": "kill"}]',
    "no such action": '[{"at": "start", "action": "sing"}]',
    "no such field": '[{"at": "start", "action": "kill", "when": 1}]',
}


@pytest.mark.fault("G9")
def test_the_service_does_not_start_with_faults_armed_outside_of_tests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SANTACODER_FAULTS", '[{"at": "start", "action": "kill"}]')
    assert launch.main([]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: SANTACODER_FAULTS: fault points are for tests; got it set;")
    assert line.count("\n") == 1
    monkeypatch.setenv("SANTACODER_TEST_MODE", "1")
    for words, text in WRONG.items():
        monkeypatch.setenv("SANTACODER_FAULTS", text)
        assert launch.main([]) == 2, words
        assert capsys.readouterr().err.startswith("error: SANTACODER_FAULTS: cannot be read: ")


@pytest.mark.fault("G9")
def test_a_rank_does_not_start_with_faults_armed_outside_of_tests(
    fault_model: Path, tmp_path: Path
) -> None:
    words = ["--rank=0", f"--model={fault_model}", f"--listen=unix:{tmp_path}/r.sock"]
    ended = subprocess.run(
        [sys.executable, "-m", "santacoder_shard", *words],
        env={**os.environ, "SANTACODER_FAULTS": '[{"at": "start", "action": "kill"}]'},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "error: SANTACODER_FAULTS: fault points are for tests" in ended.stderr
