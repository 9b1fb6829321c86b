"""The end of a run fits one screen, on every terminal, whatever a server said."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from client.loadtest.example_result import example_run, example_sweep

from santacoder_client.loadtest.result import ErrorCount, Outcomes, Rates, Result
from santacoder_client.loadtest.table import show_table, table_text
from santacoder_client.loadtest.window import Window


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, **environ: str) -> str:
    show_table(example_run(), stream, {"TERM": "xterm-256color"} | environ)
    return stream.getvalue()


def test_a_run_is_one_screen_of_80_columns() -> None:
    text = table_text(example_run())
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.split("\n"))
    assert len(text.split("\n")) <= 36
    assert text.isascii() and "~" not in text


def test_a_run_shows_outcome_latencies_rates_goodput_verdict_thresholds_and_errors() -> None:
    lines = [" ".join(line.split()) for line in table_text(example_run()).split("\n")]
    text = "\n".join(lines)
    assert lines[0].startswith("1 176 answered, 14 failed, 2 unsent, 3 cancelled, 5 superseded")
    assert "ttft 1 176 24 ms 48.9 ms 106 ms 101-114 ms - 168 ms" in lines
    assert "requests/s 40 offered, 40 sent, 39.2 answered" in lines
    assert "goodput 92.8 % met ttft<100ms,e2e<2s, 36.9 a second" in lines
    assert "verdict the server was the limit" in lines
    assert "the server's queue grew to 41 requests" in lines
    assert "threshold errors.share<1% MISSED, got 0.0118" in lines
    assert "RESOURCE_EXHAUSTED QUEUE_FULL 12 the queue is full (512 requests)" in lines
    assert "37 % cached" in text.replace("\n", " ")


def test_a_sweep_shows_its_points_its_knee_and_its_best() -> None:
    lines = [" ".join(line.split()) for line in table_text(example_sweep()).split("\n")]
    assert lines[0].startswith("at 40 a second: 1 176 answered")
    assert "56 50 2 400 170 ms 750 ms 12.8 s 40 % 180 server" in lines
    assert "knee at 48 requests per second: 47.8 answered a second" in lines
    assert "ttft<100ms,e2e<2s held up to 44 requests per second; 48 missed it" in lines


@pytest.mark.parametrize("result", [example_run(), example_sweep()])
@pytest.mark.parametrize("width", [1, 20, 40, 60, 72, 79, 80, 200])
def test_any_width_is_written(result: Result, width: int) -> None:
    text = table_text(result, width)
    assert max(map(len, text.split("\n"))) <= max(40, min(100, width))
    assert text.isascii()
    head = next(line for line in text.split("\n") if line.startswith(("latency", "rate")))
    assert "~" not in head and ("p99" in head)


def test_colours_are_for_terminals_that_want_them() -> None:
    assert "\x1b[" in shown(Terminal())
    assert "\x1b" not in shown(io.StringIO())
    assert "\x1b" not in shown(Terminal(), NO_COLOR="1")
    assert "\x1b" not in shown(Terminal(), TERM="dumb")
    assert "\x1b" not in shown(Terminal(), TERM="")


def test_what_a_server_says_cannot_write_to_the_terminal() -> None:
    evil = ErrorCount("UNKNOWN", "[red]X", 1, "\x1b[2J\x07[bold]gone\r\n\u202eevil \U0001f600")
    text = table_text(replace(example_run(), errors=(evil,)), coloured=True)
    assert "\x1b[2J" not in text and "\x07" not in text and "\r" not in text
    assert "[red]X" in text and "[bold]gone" in text
    assert text.isascii()


def test_many_kinds_of_errors_are_cut_short() -> None:
    errors = tuple(ErrorCount("UNKNOWN", f"R{n}", 1, "x" * 500) for n in range(9))
    text = table_text(replace(example_run(), errors=errors))
    assert "and 4 other kinds" in text and "R4" in text and "R5" not in text


def test_nothing_measured_is_shown_as_that() -> None:
    empty = replace(
        example_run(),
        interrupted=True,
        outcomes=Outcomes(),
        figures={},
        errors=(),
        goodput=(),
        thresholds=(),
        cached_share=None,
        rates=Rates(None, None, None, None, None, None),
        window=Window(5.0, 30.0, 2.0, 5.0, 5.0),
    )
    text = table_text(empty)
    assert text.startswith("interrupted: 0 answered, 0 failed, 0 unsent (due in 0 ms")
    assert "latency" not in text and "requests/s" not in text


def test_an_interval_that_is_open_above_says_so() -> None:
    run = example_run()
    p99 = replace(run.figures["ttft"].percentiles["p99"], high=None)
    figure = replace(
        run.figures["ttft"], percentiles=run.figures["ttft"].percentiles | {"p99": p99}
    )
    text = table_text(replace(run, figures={"ttft": figure}))
    assert "over 101 ms" in text
