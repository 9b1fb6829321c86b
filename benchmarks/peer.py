"""transformers as the other side of a comparison, in a process of its own; knows nothing of ours.

`Peer` starts this file as a program, which answers one line of JSON with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What was generated, a list of ids a prompt; seconds from the call on."""

    token_ids: list[list[int]]
    first_token_seconds: float
    total_seconds: float

    @property
    def token_count(self) -> int:
        return sum(map(len, self.token_ids))

    @property
    def decode_tokens_per_second(self) -> float:
        """Without the prompt: from the first token on."""
        steps = self.token_count - len(self.token_ids)
        return steps / (self.total_seconds - self.first_token_seconds)


class Peer:
    """transformers' generate with one model: sdpa, float32, greedy, no id ends the text."""

    def __init__(self, checkpoint: Path, thread_count: int) -> None:
        command = [sys.executable, __file__, str(checkpoint), f"--threads={thread_count}"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.version = json.loads(self._read())["version"]

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> PeerAnswer:
        """Continue prompts of equal length as one batch."""
        if self._process.stdin is None:
            raise RuntimeError("the peer has no standard input")
        question = {"prompts": [list(ids) for ids in prompts], "max_new_tokens": max_new_tokens}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return PeerAnswer(**json.loads(self._read()))

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"the peer ended with exit code {self._process.wait()}")
        return line


def main() -> None:
    # Only in the peer's own process: the side that compares never loads them.
    import torch
    import transformers

    parser = argparse.ArgumentParser(description="Answer generate calls, a line of JSON each.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.train(False)
    print(json.dumps({"version": transformers.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        with torch.inference_mode():
            answer = _generate(model, torch.tensor(question["prompts"]), question["max_new_tokens"])
        print(json.dumps(asdict(answer)), flush=True)


def _generate(model: Any, prompts: Any, max_new_tokens: int) -> PeerAnswer:
    step_ends: list[float] = []

    def note_time(_ids: Any, _scores: Any, **_: Any) -> bool:
        step_ends.append(time.perf_counter())
        return False

    begin = time.perf_counter()
    rows = model.generate(
        prompts,
        attention_mask=prompts.new_ones(prompts.shape),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        stopping_criteria=[note_time],
    )
    return PeerAnswer(
        rows[:, prompts.shape[1] :].tolist(), step_ends[0] - begin, step_ends[-1] - begin
    )


if __name__ == "__main__":
    main()
