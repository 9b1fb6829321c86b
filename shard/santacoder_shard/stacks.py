"""Where every thread of this process is, written to a file when it crashes, hangs or is asked.

Lines of code and names of functions only: no values, so no prompts.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import traceback
from pathlib import Path
from typing import TextIO

# Sent by whoever wants to know before it kills the process.
STACKS_SIGNAL = signal.SIGUSR2


class Stacks:
    """The file, or standard error; open for the life of the process, as a crash cannot open it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO = sys.stderr if path is None else path.open("w")
        faulthandler.enable(self._file, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, self._file, all_threads=True)

    def discard(self) -> None:
        """Nobody is going to read them."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def write(self, cause: BaseException | None) -> None:
        """Where `cause` was raised, if there is one, and where all threads are now.

        Only to a file: on standard error an end is one line.
        """
        if self._path is None:
            return
        for error in (cause,) if cause is not None else ():
            frames = traceback.format_tb(error.__traceback__)
            self._file.write(f"{type(error).__name__} was raised here:\n{''.join(frames)}\n")
        self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)
