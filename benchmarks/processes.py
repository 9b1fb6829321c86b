"""Servers as processes of their own: started, weighed by their CPU time, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 30.0
BENCHMARKS = Path(__file__).parent


class ServerProcess:
    """A server that prints `ready NAME=ADDRESS ...`; `addresses` holds what it printed."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line.startswith("ready "):
            code = self._process.wait(STOP_SECONDS)
            raise RuntimeError(f"{' '.join(arguments)} did not start; exit code {code}")
        self.addresses = dict(field.split("=", 1) for field in line.split()[1:])

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its threads."""
        return cpu_seconds(self._process.pid)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def mock_shard(*flags: str) -> ServerProcess:
    """`santacoder-load mock-shard`; its address is `shards`."""
    return ServerProcess(["-m", "santacoder_client.loadtest", "mock-shard", *flags])


def router(shards: str) -> ServerProcess:
    """`santacoder-router`; its address is `grpc`."""
    flags = [f"--shards={shards}", "--port=0", "--log-level=error"]
    return ServerProcess(["-m", "santacoder_router", *flags])


def echo(*flags: str) -> ServerProcess:
    """A bare grpc.aio server; its address is `echo`."""
    return ServerProcess([str(BENCHMARKS / "echo.py"), *flags])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, in user and kernel mode, of all its threads."""
    # The name, in parentheses, may hold anything; fields are counted behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def all_cpu_seconds(servers: Mapping[str, ServerProcess]) -> dict[str, float]:
    """Processor time so far, of servers by name, and of this process as `client`."""
    spent = {name: server.cpu_seconds() for name, server in servers.items()}
    return {**spent, "client": cpu_seconds(os.getpid())}
