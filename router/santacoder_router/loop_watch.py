"""Ends a router whose event loop stands still: it serves nobody, and its health cannot say so.

A thread of its own looks. It counts its looks and not the time, so that a machine that stood
still, and this process with it, is not held against the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

LIMIT_SECONDS = 10.0
LOOK_SECONDS = 0.5
EXIT_INTERNAL = 70


def end_process() -> NoReturn:
    """Says on standard error where every thread is, and exits with 70."""
    sys.stderr.write("error: the event loop stands still; leaving\n")
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_INTERNAL)


class LoopWatch:
    """Watches `loop` from `start` to `stop`; `end` is called once it stood still for too long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_seconds: float = LIMIT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._loop = loop
        self._look_seconds = look_seconds
        self._most_looks = limit_seconds / look_seconds
        self._end = end
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop watch", daemon=True)

    def start(self) -> None:
        """Looks from here on."""
        self._answered.set()
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        look_count = 0
        while not self._stopped.wait(self._look_seconds):
            if self._answered.is_set():
                look_count = 0
                self._ask()
            look_count += 1
            if look_count > self._most_looks:
                self._end()
                return

    def _ask(self) -> None:
        self._answered.clear()
        # A loop that has been closed has ended in order.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._answered.set)
