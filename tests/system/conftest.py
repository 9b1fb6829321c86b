"""One small checkpoint and the services that most tests share: starting one costs seconds."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from running_service import WAIT_SECONDS, Service, serving
from system.cases import CROWD_SIZE

from santacoder_client import Client


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layout b, multi-query, four heads; its context lets a request be met in mid-work."""
    return make_checkpoint(tmp_path_factory.mktemp("model") / "small", positions=2048)


@pytest.fixture(scope="session")
def run_folders() -> Iterator[Path]:
    """Where services make their run folders: a short path, as sockets need. Empty at the end."""
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    yield folder
    # The ranks of a service that was killed tidy up by themselves.
    deadline = time.monotonic() + WAIT_SECONDS
    while (left_behind := list(folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(folder)
    shutil.rmtree(f"{folder}.state", ignore_errors=True)
    assert left_behind == []


@pytest.fixture(scope="session")
def service(model_folder: Path, run_folders: Path) -> Iterator[Service]:
    """One rank, with a slot for each of 32 requests."""
    with serving(model_folder, run_folders, f"--max-running={CROWD_SIZE}") as running:
        yield running
        # Whatever the tests have asked of it.
        assert "Traceback" not in running.stop()


@pytest.fixture(scope="session")
def service_of_two_ranks(model_folder: Path, run_folders: Path) -> Iterator[Service]:
    """The same model, cut in two."""
    with serving(model_folder, run_folders, "--tp=2") as running:
        yield running
        running.stop()


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[Client]:
    """The SDK at the one-rank service."""
    with Client(service.target) as connected:
        yield connected


@pytest.fixture(scope="session")
def client_of_two_ranks(service_of_two_ranks: Service) -> Iterator[Client]:
    """The SDK at the two-rank service."""
    with Client(service_of_two_ranks.target) as connected:
        yield connected
