"""`santacoder-load` as a person runs it, in this process or in one of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.loadtest.__main__ import main
from santacoder_client.testing import FakeRouter

MODULE = [sys.executable, "-m", "santacoder_client.loadtest"]
SHORT = "--rate 50 --arrival constant --warm-up 0s --duration 300ms --cool-down 0s --workers 1"
ENOUGH = 10
"""Requests after which some have been answered: a user of a closed loop waits for each."""
PATIENCE_SECONDS = 60.0
"""Far above what anything here takes; only a hang reaches it."""


def run(router: FakeRouter, command: str) -> int:
    return main(["run", "--target", router.target, *shlex.split(command)])


def result_at(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text())
    assert result["schema"] == "santacoder-load/1"
    return result


def wait_for(count: int, requests: Sequence[pb.CompletionRequest]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while len(requests) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def command_line(
    *argv: str, before: tuple[str, ...] = (), **how: Any
) -> Iterator[subprocess.Popen[str]]:
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    with subprocess.Popen([*before, *MODULE, *argv], text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()
