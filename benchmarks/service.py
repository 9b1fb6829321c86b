"""santacoder-serve as a user runs it, in processes of its own: started, asked, weighed, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from santacoder_client import Client

STOP_SECONDS = 60.0
REQUEST_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request as its client saw it; moments are of `time.perf_counter`."""

    token_ids: list[int]
    cached_token_count: int
    sent_at: float
    first_piece_at: float
    first_piece_token_count: int
    ended_at: float

    @property
    def first_token_seconds(self) -> float:
        return self.first_piece_at - self.sent_at

    @property
    def decode_tokens_per_second(self) -> float:
        """Without the prompt: from the first piece on."""
        after_first = len(self.token_ids) - self.first_piece_token_count
        return after_first / (self.ended_at - self.first_piece_at)


class Service:
    """A running service; `ready_seconds` is how long it took from the command to its ready line."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        command = [sys.executable, "-m", "santacoder_shard.launch", "--port=0", "--metrics-port=0"]
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, "--log-level=error", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        self.ready_seconds = time.perf_counter() - begin
        if not line.startswith("ready "):
            code = self._process.wait(STOP_SECONDS)
            raise RuntimeError(f"santacoder-serve did not start; exit code {code}")
        fields = dict(field.split("=", 1) for field in line.split()[1:])
        self._metrics_url = f"http://{fields['metrics']}/metrics"
        self.address = fields["grpc"]
        self.metrics_address = fields["metrics"]
        self.client = Client(self.address)

    def complete(self, prompt: Sequence[int], max_new_tokens: int) -> Answer:
        """Stream a greedy completion that no id ends."""
        sent_at = time.perf_counter()
        stream = self.client.stream(
            list(prompt), max_new_tokens=max_new_tokens, ignore_eos=True, timeout=REQUEST_SECONDS
        )
        token_ids: list[int] = []
        first_at, first_count = 0.0, 0
        for piece in stream:
            if piece.token_ids and not token_ids:
                first_at, first_count = time.perf_counter(), len(piece.token_ids)
            token_ids += piece.token_ids
        ended_at = time.perf_counter()
        cached = stream.usage.cached_token_count if stream.usage is not None else 0
        return Answer(token_ids, cached, sent_at, first_at, first_count, ended_at)

    def complete_all(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Answer]:
        """The same for all prompts at once, a thread each."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: self.complete(prompt, max_new_tokens), prompts))

    def metrics(self) -> dict[tuple[str, str], float]:
        """Every sample by its name and, for a bucket, its upper bound (else empty)."""
        with urlopen(self._metrics_url) as response:
            text = response.read().decode()
        return {
            (sample.name, sample.labels.get("le", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def processes(self) -> dict[str, int]:
        """Process id by role: launcher, router, rank 0 and so on."""
        found = {"launcher": self._process.pid}
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for child in children.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            rank = next((word for word in words if word.startswith("--rank=")), None)
            found["router" if rank is None else rank[2:].replace("=", " ")] = int(child)
        return found

    def close(self) -> None:
        self.client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
