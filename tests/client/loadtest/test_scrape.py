"""The server's own metrics: read strictly, compared rightly, and never worth a failed run."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.exposition import NotExposition, parse_exposition
from santacoder_client.loadtest.scrape import (
    Scrape,
    check_metrics_targets,
    compare_scrapes,
    problems,
    scrape,
)

EXAMPLE = """\
# HELP requests_total RPCs that ended.
# TYPE requests_total counter
requests_total{method="Complete",code="OK"} 1027 1395066363000
requests_total{method="a\\\\b\\"c\\n d{,}=\\" ",code="OK",} 3
# TYPE running gauge
running 4
# TYPE step_seconds histogram
step_seconds_bucket{le="0.05"} 24054
step_seconds_bucket{le="+Inf"} 144320
step_seconds_sum 5.34e-1
step_seconds_count 144320

# a comment
nothing NaN
most +Inf
least\t-Inf
spaced { a="b" , c="d" }   .5
"""


def test_the_text_format_is_read() -> None:
    found = parse_exposition(EXAMPLE)
    assert found.values['requests_total{method="Complete",code="OK"}'] == 1027
    assert found.values['requests_total{method="a\\\\b\\"c\\n d{,}=\\" ",code="OK"}'] == 3
    assert found.values["running"] == 4
    assert found.values["step_seconds_sum"] == 0.534
    assert math.isnan(found.values["nothing"])
    assert (found.values["most"], found.values["least"]) == (math.inf, -math.inf)
    assert found.values['spaced{a="b",c="d"}'] == 0.5
    assert found.grows('requests_total{code="OK"}') and found.grows("step_seconds_count")
    assert not found.grows("running") and not found.grows("unknown")


@pytest.mark.parametrize(
    "line",
    [
        *("metric5", "metric", "5 5", "a{b=c} 1", 'a{b="c} 1', 'a{b="c" d="e"} 1', "a{,} 1"),
        *("a{} {} 1", 'a{b="\\x"} 1', "a 0x10", "a 1_0", "a 1 2 3", "a inf", "<html>", " a 1"),
        *("a \u0661", 'a{"b"="c"} 1', "a 1\nb 2\na 1"),
    ],
)
def test_what_is_not_the_format_is_refused(line: str) -> None:
    with pytest.raises(NotExposition, match=r"^line \d+: "):
        parse_exposition(line + "\n")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_exposition(text)
    except NotExposition as error:
        assert "\n" not in str(error)


def test_a_line_made_to_hang_the_reader_does_not() -> None:
    for line in ("a{" + 'b="c",' * 20_000, "a" + " " * 100_000, 'a{b="' + "\\\\" * 50_000):
        with pytest.raises(NotExposition):
            parse_exposition(line)


def look(text: str) -> Scrape:
    return Scrape("127.0.0.1:1", parse_exposition(text))


def test_differences_know_what_grows_from_nothing() -> None:
    types = "# TYPE c_total counter\n# TYPE g gauge\n# TYPE h histogram\n"
    before = look(types + 'c_total{code="OK"} 10\ng 5\nh_sum 1\nh_count 2\nh_bucket{le="1"} 2\n')
    after = look(
        types + 'c_total{code="OK"} 12\nc_total{code="LATE"} 3\ng 4\nnew 7\n'
        'h_sum 1.5\nh_count 4\nh_bucket{le="1"} 4\nbad NaN\n'
    )
    (found,) = compare_scrapes([before], [after])
    assert found.delta == {
        'c_total{code="OK"}': 2,
        'c_total{code="LATE"}': 3,
        "g": -1,
        "h_sum": 0.5,
        "h_count": 2,
    }
    assert "h_bucket" not in str(found) and "bad" not in found.after


def test_a_server_that_began_anew_has_no_difference_in_what_it_counts() -> None:
    types = "# TYPE c_total counter\n"
    (found,) = compare_scrapes([look(types + "c_total 10\n")], [look(types + "c_total 2\n")])
    assert found.delta == {} and found.before == {"c_total": 10} and found.after == {"c_total": 2}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.answer = (status, body)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_is_asked_and_answers() -> None:
    with serving(200, b"# TYPE c_total counter\nc_total 3\n") as address:
        looks = scrape([address])
    assert problems(*looks) == []
    (found,) = compare_scrapes(looks, looks)
    assert (found.target, found.delta) == (address, {"c_total": 0})


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (404, b"", "answered HTTP 404"),
        (302, b"", "answered HTTP 302"),
        (200, b"<html>", "not metrics: line 1"),
        (200, b"\xff", "not read"),
    ],
)
def test_an_answer_that_is_none_is_a_problem_in_one_line(
    status: int, body: bytes, problem: str
) -> None:
    with serving(status, body) as address:
        looks = scrape([address])
    (line,) = problems(*looks)
    assert line.startswith(f"--metrics-target: {problem}") and line.endswith(f"got '{address}'")
    assert compare_scrapes(looks, looks) == ()


def test_nobody_there_is_a_problem_in_one_line() -> None:
    with serving(200, b"") as address:
        pass
    looks = scrape([address])
    (line,) = problems(*looks)
    assert "not read: Connection refused" in line
    answered = Scrape(address, parse_exposition("a 1\n"))
    (found,) = compare_scrapes([answered], looks)
    assert found.before == {"a": 1} and found.after == found.delta == {}


def test_no_target_is_no_question() -> None:
    assert scrape(()) == () and compare_scrapes((), ()) == ()


def test_addresses_are_checked() -> None:
    assert check_metrics_targets(["127.0.0.1:9", "127.0.0.1:9"], False) == ("127.0.0.1:9",)
    assert check_metrics_targets(["192.0.2.1:9"], True) == ("192.0.2.1:9",)
    for bad in ("192.0.2.1:9", "unix:/x", "localhost", "http://localhost:9", "127.0.0.1:0", ""):
        with pytest.raises(UsageError, match=r"^--metrics-target: "):
            check_metrics_targets([bad], False)
