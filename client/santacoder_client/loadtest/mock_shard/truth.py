"""What really happened, for tests to hold a load tester's figures against. JSON lines.

Times are `time.monotonic()`, which is one clock for all processes of a machine. An `admit` says
whose sequence it is by the CRC-32 of the prompt's packed ids; a `tokens` line is one result frame,
written the moment before the frame is given to gRPC.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from santacoder.shard.v1 import shard_pb2


class TruthLog:
    """Collects lines; `flush` puts them into the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        path.write_text("")

    def admitted(self, at: float, admits: list[shard_pb2.Admit]) -> None:
        """Sequences took their slots."""
        for admit in admits:
            prompt = admit.token_ids[: 4 * admit.prompt_length]
            self._note(
                {
                    "event": "admit",
                    "at": at,
                    "sequence": admit.sequence,
                    "generation": admit.generation,
                    "prompt_crc32": zlib.crc32(prompt),
                    "prompt_tokens": admit.prompt_length,
                    "cached_tokens": admit.computed_length,
                }
            )

    def sampled(
        self,
        at: float,
        sequences: list[int],
        counts: list[int],
        states: list[int],
    ) -> None:
        """A result left: so many tokens of each sequence, and what each row is now."""
        self._note(
            {
                "event": "tokens",
                "at": at,
                "sequences": sequences,
                "counts": counts,
                "states": states,
            }
        )

    def flush(self) -> None:
        """Appends what has been collected."""
        lines, self._lines = self._lines, []
        if lines:
            with self._path.open("a") as file:
                file.writelines(lines)

    def _note(self, line: dict[str, object]) -> None:
        self._lines.append(json.dumps(line, separators=(",", ":")) + "\n")
