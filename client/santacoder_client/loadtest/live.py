"""What a person sees while a run runs: a live view in a terminal, else a line now and then.

Knows records and how to show them; starts no run. A terminal that goes away ends the view, never
the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.progress import Progress, Snapshot
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.wording import ABSENT, SPACE, THIN, amount, count, duration

TICK_SECONDS = 0.25
LINE_SECONDS = 5.0
"""Between two lines where there is no terminal: a log is read later, and by the page."""
ERROR_COUNT_SHOWN = 3
VALUE_WIDTH = 11
_PLAIN = str.maketrans({THIN: " ", SPACE: " ", ABSENT: "-", "µ": "u"})
"""A terminal may know ASCII alone."""


class Surface(Protocol):
    """Something to show a moment on."""

    def show(self, snapshot: Snapshot) -> None:
        """Shows it instead of, or after, the last one."""

    def close(self) -> None:
        """The run is over."""


class LiveView:
    """Watches a run (`measure.Watcher`) and shows it on a stream. `quiet` shows nothing."""

    def __init__(self, stream: TextIO, quiet: bool = False, title: str = "") -> None:
        self._stream = stream
        self._is_quiet = quiet
        self._title = title
        """Tells the runs of a sweep apart."""
        self._progress: Progress | None = None
        self._surface: Surface | None = None
        self._ticking: asyncio.Task[None] | None = None

    def begin(self, load: Load, clock: Callable[[], float]) -> None:
        """The run begins, on the running event loop; the clock is the run's."""
        if self._is_quiet:
            return
        self._progress = Progress(load)
        with self._may_lose_its_reader():
            self._surface = _surface_for(self._stream, self._title)
            self._ticking = asyncio.get_running_loop().create_task(self._follow(clock))

    def note(self, record: RequestRecord) -> None:
        """A request is over."""
        if self._progress is not None:
            self._progress.add(record)

    def tick(self, now: float) -> None:
        """Shows the moment `now` of the run's clock."""
        if self._surface is not None and self._progress is not None:
            with self._may_lose_its_reader():
                self._surface.show(self._progress.at(now))

    def end(self) -> None:
        """The run is over, well or not. May be called again, or without a beginning."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._surface is not None:
            with self._may_lose_its_reader():
                self._surface.close()
        self._surface = self._progress = self._ticking = None

    async def _follow(self, clock: Callable[[], float]) -> None:
        while True:
            self.tick(clock())
            await asyncio.sleep(TICK_SECONDS)

    @contextmanager
    def _may_lose_its_reader(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            # Nobody looks any more. To write to a closed stream is a ValueError.
            self._surface = None


def line(snapshot: Snapshot, title: str = "") -> str:
    """A moment as one line of plain text."""
    seconds = _seconds(snapshot, " of ")
    start = f"{title}: " if title else ""
    parts = [f"{name} {value}" for name, value in _values(snapshot)]
    return plain(f"{start}{seconds}, {snapshot.phase}: {', '.join(parts)}")


def plain(text: str) -> str:
    """Without the characters that only some terminals have; control characters are left out."""
    text = text.translate(_PLAIN).encode("ascii", "replace").decode()
    return "".join(character for character in text if character.isprintable())


def _surface_for(stream: TextIO, title: str) -> Surface:
    console = _Console(file=stream, highlight=False, markup=False, emoji=False)
    if stream.isatty() and not console.is_dumb_terminal:
        return _Screen(console, title)
    return _Lines(stream, title)


class _Console(Console):
    """A console whose reader may leave."""

    def on_broken_pipe(self) -> None:
        """Says no more, instead of ending the program."""
        self.quiet = True


class _Screen:
    """Redraws a few lines in place, and takes them away at the end: the table comes then."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(
            console=console,
            auto_refresh=False,  # that would be a thread
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        picture = _picture(snapshot, self._title, self._console.width)
        self._live.update(picture, refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """Writes a line every few seconds of the run."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._title = title
        self._next_at = LINE_SECONDS

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed_seconds >= self._next_at:
            self._next_at = snapshot.elapsed_seconds + LINE_SECONDS
            self._stream.write(line(snapshot, self._title) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Lines stay."""


def _picture(snapshot: Snapshot, title: str, width: int) -> RenderableType:
    elapsed, total = snapshot.elapsed_seconds, snapshot.total_seconds
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(no_wrap=True, overflow="crop")
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    head.add_row(
        Text(plain(f"{title} {snapshot.phase}".strip()), style="bold"),
        ProgressBar(total=total, completed=min(elapsed, total)),
        Text(_seconds(snapshot, "/")),
    )
    return Group(head, *_rows(snapshot, width))


def _seconds(snapshot: Snapshot, of: str) -> str:
    """How far it is; when all is sent nobody knows how long it will be."""
    elapsed, total = snapshot.elapsed_seconds, snapshot.total_seconds
    return f"{elapsed:.0f}{of}{total:.0f} s" if elapsed < total else f"{elapsed:.0f} s"


def _rows(snapshot: Snapshot, width: int) -> Iterator[Text]:
    """As many values in a row as fit, each with so much room that it does not jump about."""
    row = Text(no_wrap=True, overflow="crop")
    for name, value in _values(snapshot):
        style = "bold red" if name == "failed" and snapshot.failed_count else "bold"
        cell = Text.assemble((f"{name} ", "dim"), (plain(value).ljust(VALUE_WIDTH), style))
        if row.cell_len and row.cell_len + cell.cell_len > width:
            yield row
            row = Text(no_wrap=True, overflow="crop")
        row.append_text(cell)
    yield row


def _values(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which one looks at them."""
    if snapshot.offered_per_second is not None:
        yield "offered", f"{amount(snapshot.offered_per_second)}/s"
    yield "answered", f"{amount(snapshot.answered_per_second)}/s"
    if snapshot.in_flight_count is not None:
        yield "in flight", count(snapshot.in_flight_count)
    if snapshot.held_count:
        yield "held back", count(snapshot.held_count)
    yield "first token p50", duration(snapshot.first_token_p50_ms)
    yield "first token p99", duration(snapshot.first_token_p99_ms)
    yield "tokens", f"{amount(snapshot.tokens_per_second)}/s"
    if snapshot.superseded_count:
        yield "superseded", count(snapshot.superseded_count)
    yield "failed", _failures(snapshot)


def _failures(snapshot: Snapshot) -> str:
    shown = [f"{reason} {number}" for reason, number in snapshot.errors[:ERROR_COUNT_SHOWN]]
    if len(snapshot.errors) > len(shown):
        shown.append(f"{len(snapshot.errors) - len(shown)} other reasons")
    reasons = f" ({', '.join(shown)})" if shown else ""
    return count(snapshot.failed_count) + reasons
