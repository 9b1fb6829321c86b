"""How a product is cut into tiles, by its size alone: chosen for speed, without effect on bits.

The choices are those that measured best for SantaCoder's shapes on an H100: benchmarks/LOG.md.
"""

from __future__ import annotations

from typing import NamedTuple

# From this many columns on, wide tiles still leave a program for every multiprocessor.
_WIDE = 8192
# A head's.
_VAST = 32768
_DEEP = 2048


class Tile(NamedTuple):
    """Rows, columns and k of a tile; warps that work on it, and loads in flight."""

    rows: int
    columns: int
    k: int
    warps: int
    stages: int
    is_described: bool = False
    """Whether loads are left to Hopper's engine for them."""


def choose_tile(
    row_count: int,
    out_size: int,
    segment_size: int,
    segment_count: int,
    can_describe: bool,
) -> Tile:
    """The tile for `row_count` rows of `out_size` columns, summed in segments of `segment_size`.

    Few rows are memory-bound: a program a multiprocessor or two, with long runs of k in flight.
    Many rows want large tiles, whose operands are read from the cache as seldom as possible.
    """
    is_wide, is_whole = out_size >= _WIDE, segment_count == 1
    described = None
    if can_describe and out_size < _VAST:
        described = _described(row_count, is_wide) if is_whole else _described_halves(row_count)
    if described is not None:
        tile = Tile(*described, is_described=True)
    elif row_count <= 16:
        tile = _few_rows(is_wide, is_whole, segment_size)
    elif row_count <= 64:
        tile = _some_rows(row_count, out_size, is_whole, segment_size)
    elif row_count <= 256:
        tile = _more_rows(row_count, out_size, is_whole)
    elif is_whole:
        narrow = Tile(128, 128, 64, 8, 3) if row_count > 1024 else Tile(128, 64, 64, 4, 3)
        tile = Tile(128, 256, 64, 8, 3) if is_wide else narrow
    else:
        tile = Tile(128, 128, 64, 8, 3)
    return tile._replace(k=_dividing(tile.k, segment_size))


def _few_rows(is_wide: bool, is_whole: bool, segment_size: int) -> Tile:
    if is_whole:
        return Tile(16, 64, 128, 4, 6) if is_wide else Tile(16, 16, 256, 4, 6)
    # 64 rows, most of them none: the instruction for so many has the shorter chain.
    return Tile(64, 16, 64, 4, 8) if segment_size > _DEEP else Tile(64, 16, 128, 4, 4)


def _some_rows(row_count: int, out_size: int, is_whole: bool, segment_size: int) -> Tile:
    if not is_whole:
        return Tile(64, 16, 128, 4, 5 if segment_size > _DEEP else 4)
    if out_size >= _VAST:
        return Tile(32, 64, 128, 4, 4) if row_count <= 32 else Tile(64, 128, 128, 4, 4)
    return Tile(64, 64, 128, 4, 5) if out_size >= _WIDE else Tile(64, 32, 64, 4, 6)


def _more_rows(row_count: int, out_size: int, is_whole: bool) -> Tile:
    # A multiprocessor loads so fast and no faster: what counts is that all of them have a tile.
    if row_count <= 128:
        if not is_whole:
            return Tile(64, 32, 128, 4, 4)
        if out_size >= _VAST:
            return Tile(128, 128, 64, 8, 5)
        return Tile(128, 64, 128, 8, 4) if out_size >= _WIDE else Tile(64, 64, 64, 4, 5)
    if out_size >= _VAST:
        return Tile(128, 256, 64, 8, 4)
    return Tile(128, 128, 64, 8, 4) if out_size >= _WIDE else Tile(64, 64, 64, 4, 5)


def _described(row_count: int, is_wide: bool) -> tuple[int, int, int, int, int] | None:
    """Tiles of a product of one segment whose loads are described; None where those are slower."""
    if is_wide and row_count <= 16:
        return None
    if row_count <= 64:
        return (64, 64, 128, 4, 5) if is_wide else (64, 32, 128, 4, 5)
    if row_count <= 128:
        return (64, 64, 64, 4, 6) if is_wide else (64, 64, 128, 4, 5)
    if row_count <= 256:
        return (128, 128, 64, 4, 5) if is_wide else (128, 64, 64, 4, 6)
    if is_wide:
        return (128, 256, 64, 8, 4) if row_count <= 1024 else (128, 256, 64, 8, 3)
    return (128, 128, 64, 4, 4)


def _described_halves(row_count: int) -> tuple[int, int, int, int, int] | None:
    """The same for two segments."""
    if row_count <= 256:
        return None
    return (128, 64, 64, 4, 4) if row_count <= 640 else (128, 128, 64, 8, 3)


def _dividing(k: int, segment_size: int) -> int:
    # At least two runs of k: of a single one the compiler makes one chain with the other segment.
    while k > 16 and (segment_size % k or segment_size < 2 * k):
        k //= 2
    return k
