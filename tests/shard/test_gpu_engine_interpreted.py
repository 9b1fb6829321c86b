"""The GPU's engine, its kernels interpreted on the CPU, tells the router what the CPU's tells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[1] / "interpreted_engine.py"


def test_plans_give_the_ids_of_the_cpu_engine() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.fullmatch(r"(\d+) ids and (\d+) log probabilities agree\n", done.stdout)
    assert counts is not None and int(counts[1]) > 40 and int(counts[2]) > 5, done.stdout
