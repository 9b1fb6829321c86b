"""What santacoder-serve refuses before it starts anything, and how quickly it can say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import make_checkpoint

from santacoder_shard import launch


@pytest.mark.fault("G2")
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--model=/nowhere/at/all"], 3, "error: model: is not a folder; got '/nowhere/at/all'\n"),
        (["--model={empty}"], 3, "error: config.json"),
        (["--model={tiny}", "--revision=main"], 3, "error: revision: is for hub ids"),
        (
            ["--model={tiny}", "--tp=3"],
            2,
            "error: --tp: does not divide the model's heads (4), inner size (256) and"
            " vocabulary (400); got 3; allowed 1, 2, 4\n",
        ),
    ],
)
def test_what_cannot_work_is_one_line_before_any_process_starts(
    arguments: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_checkpoint(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    folders = {"tiny": tmp_path / "tiny", "empty": tmp_path / "empty"}
    assert launch.main([argument.format(**folders) for argument in arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line) and shown.err.count("\n") == 1


def test_without_a_model_and_without_a_demo_it_says_where_it_looked_and_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "DEMO_FOLDERS", (tmp_path / "wheel", tmp_path / "checkout"))
    assert launch.main([]) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("error: --model: missing, and there is no demo checkpoint in ")
    assert "wheel and " in shown and shown.count("\n") == 1


def test_the_demo_is_served_without_a_model_and_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = make_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(launch, "DEMO_FOLDERS", (tmp_path / "wheel", demo))
    model = launch.find_model(launch.parse_config([]))
    assert (model.path, model.name) == (demo, "santacoder-demo")


def test_the_launcher_never_imports_torch() -> None:
    code = "import sys, santacoder_shard.launch; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "False"


def test_ctrl_c_while_the_model_is_fetched_is_exit_code_130_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(model: str, revision: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "resolve", interrupted)
    assert launch.main(["--model=organisation/name"]) == 130
    assert capsys.readouterr().err == ""
