"""A router over a simulated shard group, each in a process of its own, and what the group noted."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np


@dataclass
class Sequence:
    """What really happened to one sequence, in seconds of CLOCK_MONOTONIC."""

    admitted_at: float
    prompt_tokens: int
    cached_tokens: int
    emissions: list[tuple[float, int]] = field(default_factory=list)
    """When tokens left the shard, and how many."""
    last_state: int = 0


@dataclass(frozen=True)
class MockService:
    """A group's addresses and log, and those of the router in front of it, if there is one."""

    shards: str
    truth_file: Path
    shard: subprocess.Popen[str]
    target: str = ""
    router: subprocess.Popen[str] | None = None

    def truth(self) -> dict[int, Sequence]:
        """Sequences by the checksum of their prompt; for when the shard has ended."""
        found: dict[int, Sequence] = {}
        running: dict[int, Sequence] = {}
        for text in self.truth_file.read_text().splitlines():
            line = json.loads(text)
            if line["event"] == "admit":
                sequence = Sequence(line["at"], line["prompt_tokens"], line["cached_tokens"])
                running[line["sequence"]] = found[line["prompt_crc32"]] = sequence
                continue
            rows = zip(line["sequences"], line["counts"], line["states"], strict=True)
            for number, count, state in rows:
                if count:
                    running[number].emissions.append((line["at"], count))
                    running[number].last_state = state
        return found

    def stop(self) -> Mapping[int, Sequence]:
        """Ends all processes, and gives the truth."""
        for process in (self.router, self.shard):
            if process is not None:
                process.terminate()
                assert process.wait(60) == 0
        return self.truth()


def checksum(token_ids: tuple[int, ...]) -> int:
    """What the log calls a prompt by."""
    return zlib.crc32(np.array(token_ids, "<u4").tobytes())


@contextmanager
def mock_group(folder: Path, *flags: str) -> Iterator[MockService]:
    """A shard group alone, with its files in a folder; it is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / "truth.jsonl"
    listen = f"--listen=unix:{folder}/shard"
    words = ["santacoder_client.loadtest", "mock-shard", listen, f"--truth={truth}", *flags]
    with started(words) as (shard, facts):
        yield MockService(facts["shards"], truth, shard)


@contextmanager
def mock_service(folder: Path, *flags: str) -> Iterator[MockService]:
    """A group with a router that is ready."""
    with mock_group(folder, *flags) as group:
        words = ["santacoder_router", f"--shards={group.shards}", "--port=0", "--log-level=error"]
        with started(words) as (router, addresses):
            yield replace(group, target=addresses["grpc"], router=router)


@contextmanager
def started(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A module's process, and the facts of its ready line."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), line
            yield process, dict(part.split("=", 1) for part in line.split()[1:])
        finally:
            process.kill()
