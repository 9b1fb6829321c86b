"""Which stretch of a file to take out: a span, a line, the rest of a line, a function's body.

Pure: takes a text and gives positions; nothing of the text is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from santacoder_client.loadtest.data.bodies_braces import brace_bodies
from santacoder_client.loadtest.data.bodies_python import Gap, line_starts, python_bodies
from santacoder_client.loadtest.data.draws import Draws

SPLITS = ("span", "line", "rest", "body")


def prefix_share(most_context_chars: int) -> int:
    """How much of the context is the prefix's: three quarters, as it says more of what comes."""
    return most_context_chars - most_context_chars // 4


@dataclass(frozen=True, slots=True)
class Split:
    """A text in three parts."""

    prefix: str
    middle: str
    suffix: str

    def trimmed(self, most_context_chars: int) -> Split:
        """With at most so many characters around the gap, the nearest ones.

        What one side does not use of its share is the other's.
        """
        prefix_count = min(len(self.prefix), prefix_share(most_context_chars))
        suffix_count = min(len(self.suffix), most_context_chars - prefix_count)
        prefix_count = min(len(self.prefix), most_context_chars - suffix_count)
        prefix = self.prefix[len(self.prefix) - prefix_count :]
        return Split(prefix, self.middle, self.suffix[:suffix_count])


def places(text: str, language: str, split: str, most_chars: int) -> tuple[Gap, ...]:
    """Where a gap of this kind can be; `split_at` makes each of them one."""
    match split:
        case "span":
            return ((0, len(text)),) if text.strip() else ()
        case "line" | "rest":
            found: Sequence[Gap] = _lines(text)
        case _:
            found = python_bodies(text) if language == "python" else brace_bodies(text, language)
    return tuple(
        (begin, end)
        for begin, end in found
        if end - begin <= most_chars and _says(text, begin, end)
    )


def split_at(text: str, place: Gap, split: str, most_chars: int, draws: Draws) -> Split:
    """Takes a gap out at this place."""
    begin, end = place
    match split:
        case "span":
            begin, end = _span(text, most_chars, draws)
        case "rest":
            # Not in the indentation, and with something left to say.
            line = text[begin:end]
            begin += draws.between(len(line) - len(line.lstrip()), len(line.rstrip()) - 1)
    return Split(text[:begin], text[begin:end], text[end:])


def _lines(text: str) -> list[Gap]:
    """Every line, indented as it is, without its end."""
    starts = line_starts(text)
    ends = [*starts[1:], len(text)]
    return [
        (begin, begin + len(text[begin:end].rstrip("\r\n")))
        for begin, end in zip(starts, ends, strict=True)
    ]


def _says(text: str, begin: int, end: int) -> bool:
    return bool(text[begin:end].strip())


def _span(text: str, most_chars: int, draws: Draws) -> Gap:
    """Two places at random, as in training; not further apart than allowed."""
    first, second = sorted((draws.between(0, len(text)), draws.between(0, len(text))))
    begin = min(first, len(text) - 1)
    end = min(max(second, begin + 1), begin + most_chars)
    # A gap that is the whole text would leave nothing to ask with.
    return (begin, end - 1) if 1 < end - begin == len(text) else (begin, end)
