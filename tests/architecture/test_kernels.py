"""What Triton wants of a kernel but says only on a GPU, read from the parsed sources."""

from __future__ import annotations

import ast
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "shard/santacoder_shard/kernels"
# Parameters of Triton's own launchers.
TAKEN = {"options", "grid", "warmup"}


def test_no_kernel_has_a_parameter_that_its_launcher_has() -> None:
    files = sorted(KERNELS.rglob("triton_kernel.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                names = {argument.arg for argument in node.args.args}
                assert not names & TAKEN, f"{file}: {node.name} has {names & TAKEN}"
