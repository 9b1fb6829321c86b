"""A running santacoder-serve for a test: its lines, its processes, its metrics, its end.

Refuses to know what is asked of it: callers talk to `target` over gRPC, as anybody would.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

WAIT_SECONDS = 180.0


class Service:
    """A santacoder-serve of one thread a rank, ready or not, with its run folder in `temporary`.

    Without a model it serves its default.
    """

    def __init__(
        self,
        model: Path | str | None,
        temporary: Path,
        *extra: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "santacoder_shard.launch", "--port=0", "--threads=1"]
        named = [] if model is None else [f"--model={model}"]
        self.process = subprocess.Popen(
            [*command, *named, *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **(os.environ if environment is None else environment),
                "TMPDIR": str(temporary),
                "XDG_STATE_HOME": f"{temporary}.state",
            },
        )
        self.target = ""
        self.metrics_address = ""
        self._errors: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()

    def wait_ready(self) -> None:
        """Reads the ready line, or fails with all that was said instead."""
        assert self.process.stdout is not None
        patience = threading.Timer(WAIT_SECONDS, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        facts = dict(part.split("=", 1) for part in line.split()[1:])
        assert line.startswith("ready ") and "grpc" in facts, (line, self.end())
        self.target = facts["grpc"]
        self.metrics_address = facts["metrics"]

    def said_at(self, text: str, since: float = 0.0) -> float:
        """When a line with `text` came on standard error, the first time from `since` on."""
        return next(at for at, line in self._errors if text in line and at >= since)

    def children(self) -> dict[str, int]:
        """Process ids by name: router, rank 0, ..."""
        pid = self.process.pid
        found = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                ranks = [word for word in words if word.startswith("--rank=")]
                found[ranks[0].replace("--rank=", "rank ") if ranks else "router"] = int(child)
        return found

    def metrics_page(self) -> str:
        """What Prometheus would read now."""
        connection = http.client.HTTPConnection(self.metrics_address, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value; 0 for labels that have none yet."""
        for family in text_string_to_metric_families(self.metrics_page()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def wait_metric(self, name: str, value: float, **labels: str) -> None:
        """Waits for a gauge to come to `value`; the router sets them four times a second."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (seen := self.metric(name, **labels)) != value:
            assert time.monotonic() < deadline, f"{name}{labels}: got {seen}; wanted {value}"
            time.sleep(0.05)

    def end(self) -> tuple[int, str, str]:
        """Exit code, the rest of standard output, standard error."""
        assert self.process.stdout is not None
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join()
        return code, self.process.stdout.read(), "".join(line for _, line in self._errors)

    def stop(self) -> str:
        """Asks it to end, and holds it to a clean end; what it has said on standard error."""
        self.process.send_signal(signal.SIGTERM)
        code, out, err = self.end()
        assert (code, out) == (0, ""), err
        return err

    def close(self) -> None:
        """End it if it has not ended, and let go of its pipes."""
        self.process.kill()
        self._reader.join()
        with self.process:
            pass

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append((time.monotonic(), line))


@contextmanager
def serving(
    model: Path | str | None,
    temporary: Path,
    *extra: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """A service that is ready, and gone afterwards, however the test ends."""
    service = Service(model, temporary, *extra, environment=environment)
    try:
        service.wait_ready()
        yield service
    finally:
        service.close()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder of a short path, as sockets need; it goes, and what a service keeps beside it."""
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    try:
        yield folder
    finally:
        for made in (folder, Path(f"{folder}.state")):
            shutil.rmtree(made, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Orphans that nobody reaps have ended all the same."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
