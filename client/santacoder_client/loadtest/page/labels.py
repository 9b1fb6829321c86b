"""The words around a drawing: ticks that do not run into each other, and marks above the plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.plot import Axis, Mark, Plot

ROOM_SHARE = 0.08
"""Ticks closer than this share of the axis would run into each other."""
ROOM_SHARE_NARROW = 0.22
"""The same on a phone, where every label takes more of the width."""
RIGHTMOST_SHARE = 0.65
"""A label of a mark past this has no room to its right."""


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


def upright_marks(plot: Plot) -> list[Mark]:
    """The marks that have a label above the plot, from left to right."""
    return sorted((mark for mark in plot.marks if mark.upright), key=lambda mark: mark.at)


def mark_labels(plot: Plot) -> Iterator[Html]:
    """Labels of marks. Those above the plot stand in steps, so that no leader crosses a word."""
    places = [(place(plot.x, mark.at), mark) for mark in upright_marks(plot)]
    to_left = [pair for pair in reversed(places) if pair[0] > RIGHTMOST_SHARE]
    to_right = [pair for pair in places if pair[0] <= RIGHTMOST_SHARE]
    yield from _steps(to_left, "left", 0, len(places))
    yield from _steps(to_right, "right", len(to_left), len(places))
    for mark in plot.marks:
        if not mark.upright:
            yield _level_label(plot, mark)


def _steps(
    pairs: Sequence[tuple[float, Mark]], side: str, first_row: int, row_count: int
) -> Iterator[Html]:
    for row, (across, mark) in enumerate(pairs, start=first_row):
        style = f"left:{across:.2%};height:{1.25 * (row_count - row):.2f}em"
        yield element("span", element("b", mark.label), class_=f"label {side}", style=style)


def _level_label(plot: Plot, mark: Mark) -> Html:
    down = 1 - place(plot.y, mark.at)
    side = "over" if down > 0.12 else "under"
    return element("span", mark.label, class_=f"label level {side}", style=f"top:{down:.2%}")
