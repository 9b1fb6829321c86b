"""The GPU's kernels, run by Triton's interpreter on the CPU, give the logits of the CPU's model.

In a process of its own: whether kernels are interpreted is fixed when they are imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[1] / "interpreted_steps.py"
# Half precision rounds operands to 2^-11 at some ten places a layer; float32 only adds elsewhere.
LARGEST_ERRORS = {"float32": 2e-5, "float16": 2e-2}


@pytest.mark.parametrize("kv_head_count", [1, 4], ids=["multi_query", "multi_head"])
@pytest.mark.parametrize("dtype", LARGEST_ERRORS)
def test_interpreted_steps_give_the_logits_and_ids_of_the_cpu(
    dtype: str, kv_head_count: int
) -> None:
    largest = LARGEST_ERRORS[dtype]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), dtype, str(kv_head_count), str(largest)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("step agrees") == 4, done.stdout
