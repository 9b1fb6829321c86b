"""Draws a plot: an SVG that stretches to any width, and its words as HTML that does not stretch.

Positions are shares of the plot, so one drawing serves desktop, phone and paper without a script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from santacoder_client.loadtest.page.labels import place, x_labels, y_labels
from santacoder_client.loadtest.page.mark_labels import mark_labels, upright_marks
from santacoder_client.loadtest.page.markup import Html, element
from santacoder_client.loadtest.page.plot import Bars, Line, Mark, Plot

SIDE = 1000
"""Units along each side of the drawing."""


def figure(plot: Plot) -> Html:
    """The chart with its title, its legend and how to read it."""
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", plot.title),
            element("p", plot.how, class_="how"),
        ),
        _legend(plot),
        element("p", plot.y.title, class_="unit", aria_hidden="true"),
        element(
            "div",
            y_labels(plot),
            _area(plot),
            x_labels(plot),
            class_="frame",
            style=f"--rows:{len(upright_marks(plot))}",
        ),
        element("p", plot.x.title, class_="unit below", aria_hidden="true"),
        class_="chart wide" if plot.wide else "chart",
        id=plot.name,
    )


def _legend(plot: Plot) -> Html:
    """What the lines and colours mean."""
    if not plot.legend:
        return Html("")
    keys = [(line.name, f"line s{line.style}") for line in plot.lines]
    keys += [(bars.name, f"bar s{bars.style}") for bars in plot.bars]
    if plot.bands:
        keys.append((" and ".join(band.label for band in plot.bands), "band"))
    entries = [element("li", _key(shape), name) for name, shape in keys]
    return element("ul", *entries, class_="legend")


def _key(shape: str) -> Html:
    """A sample of what is drawn."""
    is_line = shape.startswith("line")
    sample = (
        _path("M0 6H30", shape)
        if is_line
        else element("rect", x="0", y="0", width="12", height="12", class_=shape)
    )
    return element(
        "svg",
        sample,
        viewBox="0 0 30 12" if is_line else "0 0 12 12",
        class_="key" if is_line else "key block",
        aria_hidden="true",
    )


def _area(plot: Plot) -> Html:
    return element(
        "div",
        _svg(plot),
        *mark_labels(plot),
        element("div", class_="cross", hidden=""),
        element("div", class_="tip", hidden="", role="status"),
        class_="area",
        tabindex="0",
        role="group",
        aria_label=f"{plot.title}: arrow keys read the values",
        data_readings=json.dumps(_readings(plot), separators=(",", ":")),
    )


def _svg(plot: Plot) -> Html:
    title, description = f"{plot.name}-title", f"{plot.name}-desc"
    return element(
        "svg",
        element("title", plot.title, id=title),
        element("desc", plot.alternative(), id=description),
        *_shaded(plot),
        *_grid(plot),
        *(shape for group in plot.bars for shape in _bars(plot, group)),
        *(_mark(plot, mark) for mark in plot.marks),
        *(shape for line in plot.lines for shape in _line(plot, line)),
        viewBox=f"0 0 {SIDE} {SIDE}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{title} {description}",
    )


def _across(plot: Plot, x: float) -> float:
    return SIDE * place(plot.x, x)


def _down(plot: Plot, y: float) -> float:
    return SIDE * (1 - place(plot.y, y))


def _path(way: str, class_: str) -> Html:
    return element("path", d=way, class_=class_)


def _shaded(plot: Plot) -> Iterator[Html]:
    for band in plot.bands:
        left, right = _across(plot, band.begin), _across(plot, band.end)
        yield element(
            "rect",
            x=f"{left:.1f}",
            y="0",
            width=f"{right - left:.1f}",
            height=f"{SIDE}",
            class_="band",
        )


def _grid(plot: Plot) -> Iterator[Html]:
    for tick in plot.y.scale.ticks():
        yield _path(f"M0 {_down(plot, tick):.1f}H{SIDE}", "grid")
    for tick in plot.x.scale.ticks():
        yield _path(f"M{_across(plot, tick):.1f} 0V{SIDE}", "grid")


def _bars(plot: Plot, group: Bars) -> Iterator[Html]:
    for bar in group.bars:
        left, right = _across(plot, bar.begin), _across(plot, bar.end)
        top = _down(plot, bar.height)
        if bar.height > 0:
            yield element(
                "rect",
                x=f"{left:.1f}",
                y=f"{top:.1f}",
                width=f"{max(right - left, 1):.1f}",
                height=f"{SIDE - top:.1f}",
                class_=f"bar s{group.style}",
            )


def _line(plot: Plot, line: Line) -> Iterator[Html]:
    for x, low, high in line.intervals:
        across = _across(plot, x)
        way = f"M{across:.1f} {_down(plot, low):.1f}V{_down(plot, high):.1f}"
        yield _path(way, f"interval s{line.style}")
    way, pen_down = "", False
    for x, y in line.points:
        if y is not None:
            way += f"{'L' if pen_down else 'M'}{_across(plot, x):.1f} {_down(plot, y):.1f}"
        pen_down = y is not None
    if way:
        yield _path(way, f"line s{line.style}")
    marked = line.known if line.dots else _alone(line)
    dots = "".join(f"M{_across(plot, x):.1f} {_down(plot, y):.1f}h0" for x, y in marked)
    if dots:
        yield _path(dots, f"dots s{line.style}")


def _alone(line: Line) -> list[tuple[float, float]]:
    """Points between two gaps, through which no line goes."""
    heights = [None, *(y for _, y in line.points), None]
    return [
        (x, y)
        for (x, y), before, after in zip(line.points, heights, heights[2:], strict=False)
        if y is not None and before is None and after is None
    ]


def _mark(plot: Plot, mark: Mark) -> Html:
    if mark.upright:
        return _path(f"M{_across(plot, mark.at):.1f} 0V{SIDE}", "mark")
    return _path(f"M0 {_down(plot, mark.at):.1f}H{SIDE}", "mark")


def _readings(plot: Plot) -> dict[str, object]:
    """What the pointer and the arrow keys read: places, their names, and a row of values a line."""
    xs = sorted({x for line in plot.lines for x, _ in line.points})
    rows = []
    for line in plot.lines:
        known = dict(line.known)
        values = [plot.y.label(known[x]) if x in known else None for x in xs]
        rows.append([line.name, line.style, values])
    places, names = xs, [plot.x.label(x) for x in xs]
    for group in plot.bars:
        places = [(bar.begin + bar.end) / 2 for bar in group.bars]
        names = [f"{plot.x.label(bar.begin)} to {plot.x.label(bar.end)}" for bar in group.bars]
        rows.append([group.name, group.style, [plot.y.label(bar.height) for bar in group.bars]])
    across = [round(place(plot.x, each), 4) for each in places]
    return {"x": across, "at": names, "rows": rows}
