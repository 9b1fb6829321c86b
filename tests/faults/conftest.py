"""One armed service for most scenarios: starting one costs seconds, and each fault happens once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from faults.plots import PLOTS
from faults.stage import Stage, staged


@pytest.fixture(scope="session")
def fault_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layout b, multi-query, four heads; its context lets a request be met in mid-work."""
    return make_checkpoint(tmp_path_factory.mktemp("model") / "small", positions=2048)


@pytest.fixture(scope="session")
def stage_folder() -> Iterator[Path]:
    """A short path, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="sf-"))
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(f"{folder}.state", ignore_errors=True)


@pytest.fixture(scope="module")
def two_ranks(fault_model: Path, stage_folder: Path) -> Iterator[Stage]:
    """A service of two ranks, armed with every plot."""
    with staged(fault_model, stage_folder, PLOTS, "--tp=2", "--max-running=8") as stage:
        yield stage
