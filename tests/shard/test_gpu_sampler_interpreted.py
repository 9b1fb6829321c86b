"""The GPU's sampler, run by Triton's interpreter on the CPU, chooses the ids of the CPU's sampler.

In processes of their own: whether kernels are interpreted is fixed when they are imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[1] / "interpreted_sampler.py"


@pytest.mark.parametrize("check", ["random", "equals", "bans", "history", "crowd", "logprobs"])
def test_interpreted_sampler_chooses_the_ids_of_the_cpu(check: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), check],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("agrees\n"), done.stdout
