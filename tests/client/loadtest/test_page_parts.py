"""What the page is made of: numbers in words, axes, markup."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_client.loadtest.page.drawing import figure
from santacoder_client.loadtest.page.markup import element, join
from santacoder_client.loadtest.page.plot import Axis, Line, Mark, Plot
from santacoder_client.loadtest.page.reading import Part
from santacoder_client.loadtest.page.scale import Linear, Logarithmic, Tail, for_times, from_zero
from santacoder_client.loadtest.wording import (
    SPACE,
    THIN,
    amount,
    between,
    count,
    duration,
    interval,
    plural,
    share,
)

POSITIVE = st.floats(1e-6, 1e9)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 ms"),
        (0.0123, "12.3 µs"),
        (0.9994, "999 µs"),
        (0.9999, "1 ms"),
        (12.34, "12.3 ms"),
        (999.4, "999 ms"),
        (999.96, "1 s"),
        (60_000, "60 s"),
        (180_000, "3 min"),
    ],
)
def test_durations_have_the_unit_that_suits_them(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds).replace(SPACE, " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.0123"), (1.0, "1"), (123.4, "123"), (-2.5, "-2.5"), (12345.6, "12 346")],
)
def test_amounts_have_three_figures(value: float, text: str) -> None:
    assert amount(value).replace(THIN, " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "100 %"),
        (1e-05, "under 0.01 %"),
        (0.0103, "1.03 %"),
        (0.99999, "over 99.9 %"),
        (0.9917, "99.2 %"),
        (0.0, "0 %"),
    ],
)
def test_a_share_is_all_or_nothing_only_if_it_is_exactly_that(value: float, text: str) -> None:
    assert share(value).replace(SPACE, " ") == text


def test_spans_and_plurals() -> None:
    assert between(duration(1.5), duration(2.5)) == f"1.5\N{EN DASH}2.5{SPACE}ms"
    assert interval(1.5, None) == f"over 1.5{SPACE}ms"
    assert interval(None, 1.5) == f"under 1.5{SPACE}ms"
    assert interval(None, None) == ""
    assert between(duration(900), duration(1100)).count(SPACE) == 2
    assert [plural(number, "request") for number in (0, 1, 2)] == [
        "0 requests",
        "1 request",
        "2 requests",
    ]
    assert count(1234567) == f"1{THIN}234{THIN}567"


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_every_value_stands_on_its_axis_and_ticks_are_few(values: list[float]) -> None:
    for scale in (from_zero(values), for_times(values)):
        assert all(-1e-6 <= scale.place(value) <= 1 + 1e-6 for value in values)
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 12
        assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick in ticks)
        assert ticks == sorted(ticks)


def test_latencies_far_apart_get_a_logarithmic_axis() -> None:
    assert isinstance(for_times([10, 150]), Linear)
    assert isinstance(for_times([10, 250]), Logarithmic)
    assert isinstance(for_times([]), Linear)


def test_every_further_nine_has_as_much_room() -> None:
    tail = Tail([90.0, 99.0, 99.9])
    assert [round(tail.place(value), 6) for value in tail.ticks()] == [0.0, 0.5, 1.0]


def test_markup_escapes_text_and_attributes_but_not_itself() -> None:
    inner = element("b", "<&>")
    assert element("p", inner, "'\"", title='"x"', aria_label=None) == (
        '<p title="&quot;x&quot;"><b>&lt;&amp;&gt;</b>&#x27;&quot;</p>'
    )
    assert join("\x00\x1b\ud800", "a\tb") == "\N{REPLACEMENT CHARACTER}" * 3 + "a\tb"


def test_what_is_no_number_reads_as_none() -> None:
    part = Part({"a": {"b": 1.5}, "nan": float("nan"), "huge": 10**400, "yes": True})
    assert part.number("a", "b") == 1.5
    assert [part.number(*path) for path in (("nan",), ("huge",), ("yes",), ("a", "b", "c"))] == [
        None
    ] * 4


def marked(*places: float) -> str:
    """A plot from 0 to 100 with upright marks there, drawn."""
    axis = Axis("load", Linear(0.0, 100.0), str)
    marks = [Mark(place, f"at {place:g}") for place in places]
    line = Line("a line", [(0.0, 0.0), (100.0, 100.0)], 1)
    return figure(Plot("name", "Title", "How", axis, axis, [line], marks=marks))


@pytest.mark.parametrize(
    ("places", "sides"),
    [((20, 60), "right right"), ((50, 90), "left left"), ((20, 90), "left right"), ((95,), "left")],
)
def test_labels_of_marks_stand_where_there_is_room(places: tuple[float, ...], sides: str) -> None:
    found = re.findall(
        r'class="label (left|right)" style="left:\S+;height:(\S+)em"', marked(*places)
    )
    assert " ".join(side for side, _ in found) == sides
    # Every one has a row of its own.
    assert sorted(float(height) for _, height in found) == [1.25, 2.5][: len(places)]


def test_a_level_marks_label_avoids_the_lines() -> None:
    axis = Axis("load", Linear(0.0, 100.0), str)
    line = Line("falls", [(0.0, 100.0), (50.0, 20.0), (100.0, 10.0)], 1)
    level = [Mark(20.0, "SLO", upright=False)]
    assert 'class="label level begin' in figure(
        Plot("name", "Title", "How", axis, axis, [line], marks=level)
    )


def test_a_point_between_gaps_is_a_dot() -> None:
    axis = Axis("load", Linear(0.0, 100.0), str)
    line = Line("gaps", [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 5.0), (4.0, None)], 1)
    drawn = figure(Plot("name", "Title", "How", axis, axis, [line]))
    assert re.findall(r'd="(\S+ \S+)" class="dots s1"', drawn) == ["M30.0 950.0h0"]
