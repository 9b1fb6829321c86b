"""Runs one part of the GPU's benchmark in a process of its own, so that each finds an empty GPU.

A part is a function `measure(settings)` that gives figures by key. Knows no part.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 90.0
LONGEST_REASON = 300


class Unavailable(Exception):
    """A part that this machine or this version cannot run; the message is one line."""


class PartFailed(Exception):
    """A part that ended without figures; the message is one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What parts are told. `known` holds the figures of the parts before."""

    checkpoint: Path
    layer_count: int
    serve_arguments: tuple[str, ...]
    client_process_count: int
    known: Mapping[str, float] = field(default_factory=dict)


def call(where: str, settings: Settings, limit_seconds: float) -> dict[str, float]:
    """Call MODULE:FUNCTION in a new process. Raises Unavailable or PartFailed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(where, settings, theirs))
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(limit_seconds) else None
    except EOFError:
        answer = f"ended with exit code {_end(process)}"
    finally:
        if process.is_alive():
            # A second on its own: it has answered, or has nothing more to say.
            process.join(1.0)
            _end(process)
    if isinstance(answer, Unavailable):
        raise answer
    if not isinstance(answer, dict):
        raise PartFailed(str(answer or f"took more than {limit_seconds:.0f} s"))
    return answer


def _end(process: multiprocessing.process.BaseProcess) -> int | None:
    if process.is_alive():
        # What it has started is ended by it, on its way out.
        process.terminate()
        process.join(GRACE_SECONDS)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


def _answer(where: str, settings: Settings, answer: Connection) -> None:
    signal.signal(signal.SIGTERM, _leave)
    module, function = where.split(":")
    try:
        answer.send(getattr(importlib.import_module(module), function)(settings))
    except Unavailable as reason:
        answer.send(reason)
    except Exception as error:
        traceback.print_exc()
        answer.send(" ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON])


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(1)
