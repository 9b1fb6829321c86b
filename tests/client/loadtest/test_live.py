"""What a person sees while a run runs: in a terminal, in a log, and where nobody looks."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from santacoder_client.loadtest.live import LiveView
from santacoder_client.loadtest.load import Load, Phases
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord

LOAD = Load(
    model="constant",
    spacing="constant",
    per_second=40.0,
    phases=Phases(warm_up_seconds=2.0, steady_seconds=8.0, cool_down_seconds=2.0),
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def record(at: float, reason: str = "") -> RequestRecord:
    return RequestRecord(
        index=0,
        target="somewhere",
        kind="text",
        scheduled_at=at - 0.5,
        dispatched_at=at - 0.5,
        chunks=[Chunk(at - 0.47, 1)],
        finished_at=at,
        outcome=Outcome.FAILED if reason else Outcome.OK,
        reason=reason,
        completion_token_count=48,
    )


def watch(stream: TextIO, quiet: bool = False, reason: str = "QUEUE_FULL") -> None:
    """A run of 12 s, seen in no time."""
    asyncio.run(_watch(LiveView(stream, quiet, "40/s"), reason))


async def _watch(view: LiveView, reason: str) -> None:
    view.begin(LOAD, lambda: 0.0)
    for step in range(1, 480):
        now = step / 40
        view.note(record(now, reason if step % 100 == 0 else ""))
        if step % 10 == 0:
            view.tick(now)
    view.end()
    view.end()


@contextmanager
def terminal() -> Iterator[tuple[TextIO, Callable[[], str]]]:
    """A stream that is a terminal, and what reads all that it shows."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    shown = b""

    def read() -> str:
        nonlocal shown
        try:
            while part := os.read(master, 65536):
                shown += part
        except BlockingIOError:
            pass
        return shown.decode()

    class Drained(io.TextIOWrapper):
        """Empties the terminal's small buffer, as a screen does."""

        def flush(self) -> None:
            super().flush()
            read()

    with Drained(os.fdopen(slave, "wb"), encoding="utf-8", write_through=True) as stream:
        yield stream, read
    os.close(master)


def test_without_a_terminal_there_is_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    watch(stream)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("40/s: 5 of 12 s, measuring: offered 40/s, answered 39.6/s, in flight")
    assert re.search(r"first token p50 (29.|30.*) ms, first token p99 .* ms, tokens 1 920/s", first)
    assert first.endswith("failed 2 (QUEUE_FULL 2)")
    assert second.startswith("40/s: 10 of 12 s, cooling down:")
    assert stream.getvalue().isascii()


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    watch(stream, quiet=True)
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar_and_the_figures_and_is_clean_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    with terminal() as (stream, read):
        watch(stream)
        shown = read()
    assert "\x1b[?25l" in shown and shown.rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in shown, "the cursor is back"
    words = ESCAPE.sub("", shown)
    for part in ("40/s measuring", "10/12 s", "offered 40/s", "failed 4 (QUEUE_FULL 4)"):
        assert part in words


def test_twenty_columns_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "20")
    with terminal() as (stream, read):
        watch(stream)
        lines = ESCAPE.sub("", read()).replace("\r", "\n").splitlines()
    assert max(len(line) for line in lines) <= 20
    assert any(line.startswith("offered 40/s") for line in lines)


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as (stream, read):
        watch(stream)
        codes = re.findall(r"\x1b\[([0-9;]*)m", read())
    assert codes
    assert not [code for code in codes if re.search(r"(^|;)(3|4|9|10)\d", code)]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as (stream, read):
        watch(stream)
        shown = read()
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_what_a_server_says_never_steers_the_terminal(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with terminal() as (stream, read):
        watch(stream, reason="\x1b]0;owned\x07[red]\r\nBAD")
        shown = read()
    assert "\x1b]" not in shown and "\x07" not in shown
    assert "[red]BAD" in ESCAPE.sub("", shown)


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_a_terminal_that_goes_away_does_not_end_the_run(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    os.close(master)
    watch(stream)
    with pytest.raises(OSError):
        os.close(slave)
        stream.close()


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    watch(stream)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_run_that_never_began_ends_too() -> None:
    LiveView(io.StringIO()).end()
