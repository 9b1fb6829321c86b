"""Stop strings are found wherever they stand, and no more is held back than must be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_router.text.stop_strings import StopScanner, StopStrings


@st.composite
def scans(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Stop strings, and a text in pieces. Two letters, and stop strings cut from the text and bent,
    so that they overlap each other and themselves, and nearly match often."""
    text = draw(st.text("ab", min_size=1, max_size=30))
    places = st.integers(0, len(text) - 1)
    cut = st.builds(lambda start, length: text[start : start + length], places, st.integers(1, 6))
    bent = st.builds(str.__add__, cut, st.sampled_from(["", "a", "b", "c"]))
    stops = draw(st.lists(bent, max_size=4))
    edges = sorted({0, len(text), *draw(st.lists(places, max_size=6))})
    return stops, [text[start:end] for start, end in pairwise(edges)]


def first_match(text: str, stops: list[str]) -> tuple[int, str] | None:
    """End and string of the match that ends first, the longest of those, by trying everything."""
    for end in range(1, len(text) + 1):
        ending_here = [stop for stop in stops if text[:end].endswith(stop)]
        if ending_here:
            return end, max(ending_here, key=len)
    return None


def held_back_length(text: str, stops: list[str]) -> int:
    """Longest end of the text that is a proper beginning of a stop string, by trying everything."""
    beginnings = {stop[:length] for stop in stops for length in range(1, len(stop))}
    return max(
        (length for length in range(len(text) + 1) if text[-length:] in beginnings), default=0
    )


@given(scan=scans())
def test_the_scanner_agrees_with_trying_everything(scan: tuple[list[str], list[str]]) -> None:
    stops, pieces = scan
    scanner = StopScanner(StopStrings(stops))
    released = "".join(scanner.push(piece) for piece in pieces) + scanner.finish()
    text = "".join(pieces)
    match = first_match(text, stops)
    if match is None:
        assert (released, scanner.matched) == (text, None)
    else:
        end, stop = match
        assert (released, scanner.matched) == (text[: end - len(stop)], stop)


@given(scan=scans())
def test_only_a_true_beginning_of_a_stop_string_is_held_back(
    scan: tuple[list[str], list[str]],
) -> None:
    stops, pieces = scan
    scanner = StopScanner(StopStrings(stops))
    text = released = ""
    for piece in pieces:
        text += piece
        released += scanner.push(piece)
        if scanner.matched is None:
            assert released == text[: len(text) - held_back_length(text, stops)]


@pytest.mark.parametrize(
    ("stops", "text", "released", "matched"),
    [
        (["\n\n", "\ndef"], "x\n\ndef", "x", "\n\n"),
        (["abcd", "bc"], "abcd", "a", "bc"),
        (["cd", "abcd"], "xabcd", "x", "abcd"),
        (["é", "😀"], "a😀é", "a", "😀"),
        (["aab"], "aaab", "a", "aab"),
        (["abac"], "ababac", "ab", "abac"),
        (["end"], "en", "en", None),
        ([], "anything", "anything", None),
    ],
)
def test_which_stop_string_wins(
    stops: list[str], text: str, released: str, matched: str | None
) -> None:
    scanner = StopScanner(StopStrings(stops))
    assert scanner.push(text) + scanner.finish() == released
    assert scanner.matched == matched


def test_nothing_is_released_after_a_match() -> None:
    scanner = StopScanner(StopStrings(["!"]))
    assert scanner.push("a!b") == "a"
    assert scanner.push("c") == ""
    assert scanner.finish() == ""


def test_choices_share_the_strings_and_not_the_state() -> None:
    stop = StopStrings(["ab"])
    first, second = StopScanner(stop), StopScanner(stop)
    first.push("a")
    second.push("b")
    assert (first.push("b"), first.matched) == ("", "ab")
    assert second.matched is None


def test_an_empty_stop_string_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])


class _Counted(str):
    """A character that counts how often it is looked up."""

    lookups = 0

    def __hash__(self) -> int:
        type(self).lookups += 1
        return str.__hash__(self)

    __eq__ = str.__eq__


def test_the_work_grows_with_the_text_and_not_with_text_times_stop_strings() -> None:
    _Counted.lookups = 0
    stop = StopStrings(["a" * length + "b" for length in range(200, 216)])
    state = 0
    character, count = _Counted("a"), 5000
    for _ in range(count):
        state = stop.step(state, character)
    # One step forward, and at most one fall back for each: two look-ups each.
    assert _Counted.lookups <= 4 * count
