"""Lines for a descriptor, written by a thread of its own: whoever logs never waits for a reader.

A pipe that nobody empties, or a full disk, costs lines and nothing else; what is lost is counted.
Knows no levels and no formats.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

MOST_LINES = 4096
# How long the last lines may take; a reader that is there needs a millisecond.
CLOSE_SECONDS = 1.0


class LogSink:
    """A logger for structlog, and a place for single lines."""

    def __init__(self, descriptor: int, most_lines: int = MOST_LINES) -> None:
        self.dropped_count = 0
        self._tell: Callable[[float], object] | None = None
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(most_lines)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Takes a line, or drops it where too many wait."""
        try:
            self._lines.put_nowait(f"{line}\n".encode(errors="backslashreplace"))
        except queue.Full:
            self._drop()

    # structlog calls a logger by the level's name.
    debug = info = warning = error = critical = msg

    def tell_drops(self, tell: Callable[[float], object]) -> None:
        """`tell` is called with how many lines were lost: until now, and from now on."""
        self._tell = tell
        tell(self.dropped_count)

    def close(self) -> None:
        """Waits until all is written, though not for ever. Nothing may be logged afterwards."""
        try:
            self._lines.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _write(self) -> None:
        while (data := self._lines.get()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self._drop()

    def _drop(self) -> None:
        self.dropped_count += 1
        if self._tell is not None:
            self._tell(1)
