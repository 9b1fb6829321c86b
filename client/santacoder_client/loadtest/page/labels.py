"""The words along the axes: ticks that do not run into each other."""

from __future__ import annotations

from collections.abc import Iterator

from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.plot import Axis, Plot

ROOM_SHARE = 0.08
"""Ticks closer than this share of the axis would run into each other."""
ROOM_SHARE_NARROW = 0.22
"""The same on a phone, where every label takes more of the width."""


def place(axis: Axis, value: float) -> float:
    """Where a value stands on its axis; what lies outside stands at the end."""
    return min(max(axis.scale.place(value), 0.0), 1.0)


def y_labels(plot: Plot) -> Html:
    labels = [
        element("span", plot.y.label(tick), style=f"top:{1 - place(plot.y, tick):.2%}")
        for tick in plot.y.scale.ticks()
    ]
    return element("div", *labels, class_="y-labels", aria_hidden="true")


def x_labels(plot: Plot) -> Html:
    return element("div", *_x_ticks(plot.x), class_="x-labels", aria_hidden="true")


def _x_ticks(axis: Axis) -> Iterator[Html]:
    """What has room only on a wide screen is marked, so that a narrow one leaves it out."""
    last = last_narrow = -1.0
    for tick in axis.scale.ticks():
        across = place(axis, tick)
        if across - last < ROOM_SHARE:
            continue
        last = across
        narrow = across - last_narrow >= ROOM_SHARE_NARROW
        if narrow:
            last_narrow = across
        kind = None if narrow else "roomy"
        yield element("span", axis.label(tick), class_=kind, style=f"left:{across:.2%}")
