"""Every command and every program in README.md is run as it stands there.

Only what cannot be had in a test is replaced: port 50051 by a free one, a real model by a small.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from running_service import WAIT_SECONDS, serving

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DEMO = ROOT / "models/demo/checkpoint"
SCRIPTS = Path(sysconfig.get_path("scripts"))


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


def commands(program: str) -> list[list[str]]:
    """README's shell commands that start with `program`, as words."""
    words = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    found = [command for command in words if command[0] == program]
    assert found, f"README has no {program} command"
    return found


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(DEMO, tmp_path_factory.mktemp("run")) as service:
        yield service.target


def run(command: list[str], folder: Path, target: str = "") -> str:
    environment = {**os.environ, "SANTACODER_TARGET": target}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_shell_command_is_run_by_one_of_these_tests() -> None:
    programs = {line.split()[0] for block in blocks("sh") for line in block.splitlines()}
    assert programs == {"make", "santacoder", "santacoder-serve", "santacoder-load", "python"}


@pytest.mark.parametrize("command", commands("make"), ids=" ".join)
def test_make_targets_are_what_continuous_integration_runs(command: list[str]) -> None:
    assert " ".join(command) in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("command", commands("santacoder"), ids=" ".join)
def test_the_santacoder_commands_answer(command: list[str], target: str, tmp_path: Path) -> None:
    (tmp_path / "before.py").write_text("def add(a, b):\n    return ")
    (tmp_path / "after.py").write_text("\n")
    assert run([str(SCRIPTS / command[0]), *command[1:]], tmp_path, target).strip()


def test_the_load_tester_commands_run_in_order(target: str, tmp_path: Path) -> None:
    for command in commands("santacoder-load"):
        words = [str(SCRIPTS / command[0]), *command[1:]]
        if "--duration" in words:
            # What they show is the reader's to see; that they run is seen sooner.
            words[words.index("--duration") + 1] = "1s"
            words += ["--warm-up", "0s", "--cool-down", "0s"]
        if "sweep" in words:
            words[words.index("--rates") + 1] = "4,8"
            words += ["--halvings", "0"]
        assert "ttft" in run(words, tmp_path, target)
    pages = {path.name: path.read_text() for path in tmp_path.glob("*.html")}
    assert set(pages) == {"slow.html", "fast.html", "sweep.html"}
    assert all(page.startswith("<!doctype html>") for page in pages.values())


@pytest.mark.parametrize("command", commands("santacoder-serve"), ids=" ".join)
def test_the_serve_commands_get_ready(command: list[str], tmp_path: Path) -> None:
    words = list(command[1:])
    model = DEMO
    if "--model" in words:
        place = words.index("--model")
        model = make_checkpoint(tmp_path / "small", positions=2048)
        del words[place : place + 2]
    if "--revision" in words:
        # A branch of a hub id; loading by branch is tested against a hub of our own.
        place = words.index("--revision")
        del words[place : place + 2]
    if "--port" in words:
        words[words.index("--port") + 1] = "0"
    # A short path, as sockets need.
    with tempfile.TemporaryDirectory(prefix="st-") as folder:
        with serving(model, Path(folder), *words) as service:
            assert service.target
            service.stop()


@pytest.mark.parametrize("command", commands("python"), ids=" ".join)
def test_the_python_commands_run(command: list[str]) -> None:
    assert run([sys.executable, *command[1:]], ROOT).strip()


@pytest.mark.parametrize("program", blocks("python"), ids=["sdk"])
def test_the_sdk_example_runs(program: str, target: str, tmp_path: Path) -> None:
    assert "127.0.0.1:50051" in program
    output = run([sys.executable, "-c", program.replace("127.0.0.1:50051", target)], tmp_path)
    assert "FinishReason" in output or "LENGTH" in output or "END_OF_TEXT" in output
    assert "santacoder-demo" in output or "checkpoint" in output


def test_every_file_that_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links and not missing
