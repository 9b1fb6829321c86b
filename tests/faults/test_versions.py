"""The oldest gRPC and protobuf that pyproject.toml allows do what the newest in CI do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/client/test_client.py",
    "tests/client/test_session.py",
    "tests/router/test_servicer.py",
    "tests/golden/test_frames.py",
    "tests/faults/test_client_link.py",
)


def floors() -> list[str]:
    """The packages of the wire, each at its lowest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["router"]]
    found = [
        re.fullmatch(r"((?:grpcio|protobuf|googleapis)[\w-]*)>=([\d.]+)", line) for line in asked
    ]
    return [f"{match[1]}=={match[2]}" for match in found if match]


@pytest.mark.long
@pytest.mark.fault("X12")
def test_the_lowest_versions_do_as_well(tmp_path: Path) -> None:
    packages = floors()
    assert len(packages) == 6
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path)]
    done = subprocess.run([*install, *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs packages that cannot be had: {done.stderr.splitlines()[-1]}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import google.protobuf, grpc; print(grpc.__version__, google.protobuf.__version__)"
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert {f"grpcio=={told.stdout.split()[0]}", f"protobuf=={told.stdout.split()[1]}"} <= {
        *packages
    }
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    ended = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-4000:]
