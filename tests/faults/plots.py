"""Every fault that is staged with real processes: where in a rank it happens, and what should come.

A plot has a token id of its own: its fault waits for a request whose prompt holds that id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from santacoder_shard.fault_points import FaultPoint

# Prompts hold ids below this one otherwise.
FIRST_MARKER_ID = 300
KILLED = "was killed by SIGKILL"


@dataclass(frozen=True)
class Plot:
    """A fault, the id that sets it off, and how soon it has to be noticed."""

    name: str
    fault_ids: tuple[str, ...]
    fault: FaultPoint
    detection_seconds: float
    """Within this the router has to know."""
    cause: str
    """What the crash report says of it, in part."""


def _plots() -> Iterable[Plot]:
    for rank in (0, 1):
        for at, nth in (("prefill", 1), ("decode", 4), ("forward", 40), ("logits", 40)):
            name = f"rank {rank} killed at {at}"
            yield Plot(name, ("S1",), FaultPoint(at, "kill", rank, nth=nth), 0.1, KILLED)
        for at in ("result", "sent"):
            name = f"rank {rank} killed when a result is {'due' if at == 'result' else 'sent'}"
            yield Plot(name, ("S1",), FaultPoint(at, "kill", rank, nth=30), 0.1, KILLED)
    yield Plot("native crash", ("S3",), FaultPoint("forward", "segv", 1, nth=40), 0.1, "by SIGSEGV")
    yield Plot("abort", ("S3",), FaultPoint("forward", "abort", 0, nth=40), 0.1, "by SIGABRT")
    yield Plot("exception", ("S4",), FaultPoint("forward", "raise", 0, nth=40), 0.1, "RuntimeError")
    oom = FaultPoint("forward", "device_oom", 0, nth=40)
    yield Plot("no device memory", ("S6",), oom, 0.1, "OutOfMemoryError")
    nan_all = FaultPoint("logits", "nan_all", 0, nth=40)
    yield Plot("no finite row", ("S8",), nan_all, 0.1, "no row's logits are finite")
    stop = FaultPoint("decode", "stop", 1, nth=4)
    yield Plot("rank stopped", ("S2",), stop, 4.0, "no heartbeat")
    stall = FaultPoint("decode", "stall_loop", 0, nth=4, seconds=60.0)
    yield Plot("event loop stalled", ("S13",), stall, 4.0, "no heartbeat")
    skip = FaultPoint("forward", "skip_collective", 1, nth=40)
    yield Plot("collective skipped", ("S10", "S11"), skip, 6.0, "hangs: its step has run for")
    hang = FaultPoint("decode", "hang", 1, nth=4)
    yield Plot("rank hangs", ("S10",), hang, 6.0, "hangs: its step has run for")
    drop = FaultPoint("result", "drop_result", 0, nth=40)
    # Which of two ranks' words gives it away is chance.
    yield Plot("result lost", ("S15",), drop, 6.0, "cause: plan ")
    repeat = FaultPoint("result", "repeat_result", 0, nth=40)
    yield Plot("result twice", ("S15",), repeat, 6.0, "KeyError")


def _gpu_plots() -> Iterable[Plot]:
    """On a GPU a plan's steps are launched together: faults happen between plans."""
    yield Plot("rank killed at prefill", ("S1",), FaultPoint("prefill", "kill"), 0.1, KILLED)
    yield Plot("rank killed at decode", ("S1",), FaultPoint("decode", "kill", nth=4), 0.1, KILLED)
    yield Plot("rank killed at a result", ("S1",), FaultPoint("result", "kill", nth=4), 0.1, KILLED)
    yield Plot("rank stopped", ("S2",), FaultPoint("decode", "stop", nth=4), 4.0, "no heartbeat")
    oom = FaultPoint("decode", "device_oom", nth=4)
    yield Plot("no device memory", ("S6",), oom, 0.1, "OutOfMemoryError")
    illegal = FaultPoint("decode", "device_assert", nth=4)
    yield Plot("illegal access on the device", ("S21",), illegal, 6.0, "illegal")


def _gpu_group_plots() -> Iterable[Plot]:
    """Of ranks that meet over NCCL."""
    hang = FaultPoint("decode", "hang", 1, nth=4)
    yield Plot("rank hangs", ("S10",), hang, 6.0, "hangs: its step has run for")
    kill = FaultPoint("decode", "kill", 1, nth=4)
    yield Plot("rank killed in a group", ("S1", "S23"), kill, 0.1, KILLED)


def _numbered(plots: Iterable[Plot]) -> tuple[Plot, ...]:
    return tuple(
        dataclasses.replace(
            plot, fault=dataclasses.replace(plot.fault, token_id=FIRST_MARKER_ID + n)
        )
        for n, plot in enumerate(plots)
    )


PLOTS = _numbered(_plots())
GPU_PLOTS = _numbered(_gpu_plots())
GPU_GROUP_PLOTS = _numbered(_gpu_group_plots())
