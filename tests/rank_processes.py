"""Runs a function on every rank of a tensor-parallel group, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from santacoder_shard.parallel import Parallel

Job = Callable[[Parallel, Path], Any]
WAIT_SECONDS = 200.0


def run_on_ranks(job: Job, size: int, folder: Path, timeout_seconds: float = 100.0) -> list[Any]:
    """What `job(parallel, folder)` returns on each rank: tensors and plain data.

    `job` is a function of an importable module; `folder` also holds the rendezvous and the results.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(job, rank, size, folder, timeout_seconds))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_SECONDS)
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(result_path(folder, rank), weights_only=True) for rank in range(size)]


def _run(job: Job, rank: int, size: int, folder: Path, timeout_seconds: float) -> None:
    torch.set_num_threads(1)
    # How long a process takes to start, and to leave, is no part of anybody's timeout.
    _meet("started", rank, size, folder)
    parallel = Parallel.join(rank, size, folder / "rendezvous", timeout_seconds)
    _meet("joined", rank, size, folder)
    torch.save(job(parallel, folder), result_path(folder, rank))
    # At once, as a rank leaves: gloo's threads do not always survive the interpreter's own end.
    os._exit(0)


def _meet(point: str, rank: int, size: int, folder: Path) -> None:
    """Waits until every rank is here."""
    (folder / f"{point}-{size}-{rank}").touch()
    while not all((folder / f"{point}-{size}-{other}").exists() for other in range(size)):
        time.sleep(0.01)


def result_path(folder: Path, rank: int) -> Path:
    """Where a rank's result is once its job is done."""
    return folder / f"result-{rank}.pt"
