"""The table of `make bench-gpu`: figures beside their goals, here and on an H200, and peers."""

from __future__ import annotations

from collections.abc import Mapping

from figures import aligned
from gpu_goals import GOALS, H200_COPY_TBPS, Bounds, Goal, slowness

PEERS = ("eager", "sdpa", "compile")
HEADINGS = (
    "figure",
    "measured",
    "floor",
    "must",
    "aim",
    "met",
    "on an H200",
    "transformers " + "/".join(PEERS),
    "vLLM 0.24, H200",
)


def table(device: str, values: Mapping[str, float]) -> str:
    """The goals that were measured, then everything else that was."""
    factor = slowness(device, values["copy_TBps"])
    rows = [_row(goal, values, factor) for goal in GOALS if goal.key in values]
    named = {goal.key for goal in GOALS}
    others = [[key, _number(value)] for key, value in values.items() if key not in named]
    parts = [_heading(device, factor), aligned([HEADINGS, *rows]) if rows else ""]
    return "\n\n".join([*filter(None, parts), aligned([("also measured", ""), *others])])


def missed(device: str, values: Mapping[str, float]) -> list[str]:
    """The names of figures that are not what they must be, here."""
    factor = slowness(device, values["copy_TBps"])
    return [
        goal.name
        for goal in GOALS
        if goal.key in values and not goal.is_met(values[goal.key], goal.here(factor).must)
    ]


def _heading(device: str, factor: float) -> str:
    if factor == 1.0:
        return f"{device}: goals as they are set for an H200"
    return (
        f"{device}: floor, must and aim are those of an H200 with the memory's part of the time "
        f"{factor:.2f} times as long, {H200_COPY_TBPS} TB/s by the copy rate measured here"
    )


def _row(goal: Goal, values: Mapping[str, float], factor: float) -> tuple[str, ...]:
    value, here = values[goal.key], goal.here(factor)
    peers = [values.get(f"transformers_{peer}_{goal.key}") for peer in PEERS]
    theirs = " / ".join(_number(peer) for peer in peers) if any(peers) else ""
    return (
        goal.name,
        f"{_number(value)} {goal.unit}".strip(),
        _number(here.floor),
        _number(here.must),
        _number(here.aim),
        _verdict(goal, value, here),
        " / ".join(map(_number, (goal.h200.floor, goal.h200.must, goal.h200.aim))),
        theirs,
        "" if goal.vllm is None else _number(goal.vllm),
    )


def _verdict(goal: Goal, value: float, bounds: Bounds) -> str:
    if goal.is_met(value, bounds.aim):
        return "aim"
    return "yes" if goal.is_met(value, bounds.must) else "NO"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
