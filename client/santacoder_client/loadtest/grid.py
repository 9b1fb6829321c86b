"""Columns of plain text under their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from santacoder_client.loadtest.live import plain


def grid(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    texts: Iterable[int] = (0,),
    wanted: Iterable[int] | None = None,
) -> Table:
    """Columns under their names; numbers stand to the right. `wanted` leaves the others out."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    places = range(len(head)) if wanted is None else tuple(wanted)
    for place in places:
        justify: JustifyMethod = "left" if place in texts else "right"
        table.add_column(head[place], justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(plain(row[place])) for place in places))
    return table


def fitted(
    head: Sequence[str], rows: Iterable[Sequence[str]], width: int, place: int
) -> list[list[str]]:
    """The rows, with one column as narrow as the others make it, which must not be cut."""
    texts = [[plain(cell) for cell in row] for row in rows]
    columns = [column for at, column in enumerate(zip(head, *texts, strict=True)) if at != place]
    room = max(1, width - sum(max(map(len, column)) + 1 for column in columns))
    for row in texts:
        if len(row[place]) > room:
            row[place] = row[place][: room - 1] + "~"
    return texts
