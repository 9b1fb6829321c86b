"""What marks say, and where there is room to say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from santacoder_client.loadtest.page.labels import place
from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.plot import Mark, Plot

ROW_EM = 1.25
RIGHTMOST_SHARE = 0.65
"""A label of a mark past this has no room to its right."""
LEFTMOST_SHARE = 0.38
"""A label of a mark before this has no room to its left."""
LEVEL_WIDTH_SHARE = 0.4
LEVEL_HEIGHT_SHARE = 0.06
SAMPLES = 8
"""Places on a stretch of a line that are asked whether they are under a label."""


def upright_marks(plot: Plot) -> list[Mark]:
    """The marks that have a label above the plot, from left to right."""
    return sorted((mark for mark in plot.marks if mark.upright), key=lambda mark: mark.at)


def mark_labels(plot: Plot) -> Iterator[Html]:
    """Labels of marks. Those above the plot stand in steps, so that no leader crosses a word."""
    places = [(place(plot.x, mark.at), mark) for mark in upright_marks(plot)]
    # All on one side if that is possible: then no label stands across another's leader.
    all_left = bool(places) and places[0][0] >= LEFTMOST_SHARE
    begin_of_left = -1.0 if all_left and places[-1][0] > RIGHTMOST_SHARE else RIGHTMOST_SHARE
    to_left = [pair for pair in reversed(places) if pair[0] > begin_of_left]
    to_right = [pair for pair in places if pair[0] <= begin_of_left]
    yield from _steps(to_left, "left", 0, len(places))
    yield from _steps(to_right, "right", len(to_left), len(places))
    for mark in plot.marks:
        if not mark.upright:
            yield _level_label(plot, mark)


def _steps(
    pairs: Sequence[tuple[float, Mark]], side: str, first_row: int, row_count: int
) -> Iterator[Html]:
    for row, (across, mark) in enumerate(pairs, start=first_row):
        style = f"left:{across:.2%};height:{ROW_EM * (row_count - row):.2f}em"
        yield element("span", element("b", mark.label), class_=f"label {side}", style=style)


def _level_label(plot: Plot, mark: Mark) -> Html:
    """At the end of its line, over or under it, where the plot's lines are farthest."""
    height = place(plot.y, mark.at)
    spots = [(side, above) for side in ("begin", "end") for above in ("over", "under")]
    room = {spot: _room(plot, height, *spot) for spot in spots}
    side, above = max(spots, key=room.__getitem__)
    style = f"top:{1 - height:.2%}"
    return element("span", mark.label, class_=f"label level {side} {above}", style=style)


def _room(plot: Plot, height: float, side: str, above: str) -> float:
    """How far the nearest line is from the middle of a label."""
    middle = height + (LEVEL_HEIGHT_SHARE if above == "over" else -LEVEL_HEIGHT_SHARE)
    if not LEVEL_HEIGHT_SHARE / 2 <= middle <= 1 - LEVEL_HEIGHT_SHARE / 2:
        return -1.0
    near = [
        abs(y - middle)
        for x, y in _traced(plot)
        if (x <= LEVEL_WIDTH_SHARE if side == "begin" else x >= 1 - LEVEL_WIDTH_SHARE)
    ]
    return min(near, default=1.0)


def _traced(plot: Plot) -> Iterator[tuple[float, float]]:
    """Places that the plot's lines run through."""
    for line in plot.lines:
        places = [(place(plot.x, x), place(plot.y, y)) for x, y in line.known]
        yield from places[:1]
        for (x, y), (next_x, next_y) in pairwise(places):
            for step in range(1, SAMPLES + 1):
                part = step / SAMPLES
                yield x + part * (next_x - x), y + part * (next_y - y)
