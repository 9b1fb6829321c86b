"""Text to documents: windows of files, most of them with lines taken out. Knows no model.

Splits are made on characters and the parts are tokenized apart, as SantaCoder's training did, so a
cursor inside a word is in distribution. A window that is filled in prefix first (PSM) is a small
tree: its text once, and for each of several gaps a branch with the suffix and the middle, which
sees the text only up to its own gap. So a window's text is paid for once and asked about often.
Suffix first (SPM, variant 2) the text follows the suffix, and a document has one gap. In half of
the windows some identifiers are renamed throughout, so that a small model learns to copy names from
its context more than to remember the library's.
"""

from __future__ import annotations

import keyword
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from corpus import MIN_LINE_CHARACTERS, SourceFile
from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
FIM_RATE = 0.9
SPM_RATE = 0.4
WHOLE_LINE_RATE = 0.78
LINE_END_RATE = 0.15
LONGEST_MIDDLE_CHARACTERS = 300
LONG_WINDOW_RATE = 0.5
RENAMED_WINDOW_RATE = 0.5
RENAMED_NAME_RATE = 0.4
# What evaluate.py asks with: 700 tokens before the gap, 256 after it; 3.7 characters are a token.
WINDOW_CHARACTERS = 2_600
AFTER_CHARACTERS = 1_200
LONGEST_SUFFIX_TOKENS = 256
LONG_SUFFIX_RATE = 0.3
SHORT_SUFFIX_TOKENS = 128
MOST_GAPS = 10
LINES_PER_GAP = 4
# A branch's middle is some 12 tokens: without a weight, filling in would hardly count in training.
MIDDLE_WEIGHT = 8
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")


@dataclass(frozen=True, slots=True)
class Window:
    """Text in which gaps are made, and the text after it, which only suffixes reach."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Ids in a row, each with its weight in the loss.

    They see the first `fork` ids of their document's first segment, and themselves.
    """

    ids: list[int]
    weights: list[int]
    fork: int = 0


def identifiers(files: list[SourceFile]) -> list[str]:
    """Every identifier of the files once, in order of first use."""
    return list(dict.fromkeys(name for file in files for name in IDENTIFIER.findall(file.text)))


def rename(window: Window, names: list[str], rng: random.Random) -> Window:
    """The window with some of its identifiers replaced throughout by others of the corpus."""
    replacements = {
        name: rng.choice(names)
        for name in dict.fromkeys(IDENTIFIER.findall(window.before + window.after))
        if rng.random() < RENAMED_NAME_RATE and not keyword.iskeyword(name) and name != "self"
    }

    def replaced(text: str) -> str:
        return IDENTIFIER.sub(lambda match: replacements.get(match[0], match[0]), text)

    return Window(replaced(window.before), replaced(window.after))


def cut_windows(files: list[SourceFile], names: list[str], rng: random.Random) -> list[Window]:
    """One pass over `files`, each cut at random places, half of the windows renamed."""
    windows = []
    for file in files:
        begin = -rng.randrange(WINDOW_CHARACTERS)
        while begin < len(file.text):
            is_long = rng.random() < LONG_WINDOW_RATE
            share = rng.uniform(0.8, 1.0) if is_long else rng.uniform(0.05, 0.6)
            end = begin + int(WINDOW_CHARACTERS * share)
            before = file.text[max(begin, 0) : max(end, 0)]
            window = Window(before, file.text[max(end, 0) : max(end, 0) + AFTER_CHARACTERS])
            begin = end
            if window.before.strip():
                is_renamed = rng.random() < RENAMED_WINDOW_RATE
                windows.append(rename(window, names, rng) if is_renamed else window)
    return windows


def line_spans(text: str) -> list[tuple[int, int]]:
    """Where the lines begin and end that evaluate.py would ask for; a window's edges cut lines."""
    spans, begin = [], 0
    for line in text.split("\n"):
        if len(line.strip()) >= MIN_LINE_CHARACTERS:
            spans.append((begin, begin + len(line)))
        begin += len(line) + 1
    return [(begin, end) for begin, end in spans if begin > 0 and end < len(text)]


def draw_gap(text: str, lines: Sequence[tuple[int, int]], rng: random.Random) -> tuple[int, int]:
    """A whole line, the rest of a line, or any short span; late in the text more often."""
    draw, share = rng.random(), max(rng.random(), rng.random())
    if not lines or draw >= WHOLE_LINE_RATE + LINE_END_RATE:
        begin = int(len(text) * share)
        return begin, min(len(text), begin + rng.randint(1, LONGEST_MIDDLE_CHARACTERS))
    begin, end = lines[int(len(lines) * share)]
    return (begin if draw < WHOLE_LINE_RATE else rng.randrange(begin, end)), end


def fork_place(text: str, place: int) -> int:
    """The last place up to `place` where whitespace begins: no token reaches across it."""
    while place > 0 and not text[place - 1].isspace():
        place -= 1
    while place > 0 and text[place - 1].isspace():
        place -= 1
    return place


def draw_suffix(window: Window, end: int, rng: random.Random) -> tuple[str, int]:
    """The text after a gap, and how many of its tokens are shown."""
    is_long = rng.random() < LONG_SUFFIX_RATE
    limit = LONGEST_SUFFIX_TOKENS if is_long else rng.randint(1, SHORT_SUFFIX_TOKENS)
    return (window.before[end:] + window.after)[: 5 * limit], limit


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int, int]:
    """Ids of end of text, fim-prefix, fim-middle and fim-suffix."""
    vocabulary = tokenizer.get_vocab()
    end, prefix, middle, suffix = (vocabulary[token] for token in SPECIAL_TOKENS[:4])
    return end, prefix, middle, suffix


class DocumentMaker:
    """Windows in, documents out: lists of segments of which none reaches past `positions`."""

    def __init__(self, tokenizer: Tokenizer, positions: int, most_tokens: int) -> None:
        self._tokenizer, self._positions, self._most_tokens = tokenizer, positions, most_tokens
        self._end, self._prefix, self._middle, self._suffix = special_ids(tokenizer)

    def make(self, window: Window, rng: random.Random) -> list[Segment]:
        """Plain text, suffix first, or prefix first with branches, as the rates say."""
        if rng.random() >= FIM_RATE:
            return [self._plain(window)]
        if rng.random() < SPM_RATE:
            return [self._suffix_first(window, rng)]
        return self._prefix_first(window, rng)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def _plain(self, window: Window) -> Segment:
        [ids] = self._encode([window.before + window.after])
        ids = [*ids[: self._positions - 1], self._end]
        return Segment(ids, [0] + [1] * (len(ids) - 1))

    def _suffix_first(self, window: Window, rng: random.Random) -> Segment:
        begin, end = draw_gap(window.before, line_spans(window.before), rng)
        after, limit = draw_suffix(window, end, rng)
        texts = [window.before[:begin], window.before[begin:end], after]
        prefix, middle, suffix = self._encode(texts)
        suffix = suffix[:limit]
        room = self._positions - 4 - len(suffix) - len(middle)
        prefix = prefix[max(0, len(prefix) - room) :]
        ids = [self._prefix, self._suffix, *suffix, self._middle, *prefix, *middle, self._end]
        weights = [0] * (3 + len(suffix)) + [1] * len(prefix) + [MIDDLE_WEIGHT] * (len(middle) + 1)
        return Segment(ids, weights)

    def _prefix_first(self, window: Window, rng: random.Random) -> list[Segment]:
        """The trunk up to the last gap, and as many of the gaps' branches as there is room for."""
        text, lines = window.before, line_spans(window.before)
        count = min(1 + len(lines) // LINES_PER_GAP, MOST_GAPS)
        gaps = sorted({draw_gap(text, lines, rng) for _ in range(count)})
        places = [0, *(fork_place(text, begin) for begin, _ in gaps)]
        suffixes = [draw_suffix(window, end, rng) for _, end in gaps]
        trunks = self._encode([text[first:last] for first, last in pairwise(places)])
        tails = self._encode(
            [text[place:begin] for place, (begin, _) in zip(places[1:], gaps, strict=True)]
        )
        middles = self._encode([text[begin:end] for begin, end in gaps])
        afters = self._encode([suffix for suffix, _ in suffixes])
        trunk, branches = [self._prefix], []
        for ids, tail, middle, after, (_, limit) in zip(
            trunks, tails, middles, afters, suffixes, strict=True
        ):
            trunk += ids
            branches.append(self._branch(len(trunk), tail, after[:limit], middle))
        return self._fitting(trunk, branches, rng)

    def _branch(self, fork: int, tail: list[int], suffix: list[int], middle: list[int]) -> Segment:
        """What is left of the prefix, the suffix cut to the room there is, the middle."""
        suffix = suffix[: max(0, self._positions - fork - len(tail) - len(middle) - 3)]
        ids = [*tail, self._suffix, *suffix, self._middle, *middle, self._end]
        context_length = len(ids) - len(middle) - 1
        return Segment(ids, [0] * context_length + [MIDDLE_WEIGHT] * (len(middle) + 1), fork)

    def _fitting(
        self, trunk: list[int], branches: list[Segment], rng: random.Random
    ) -> list[Segment]:
        """The document without the branches that are past the positions or the row."""
        branches = [b for b in branches if b.fork + len(b.ids) <= self._positions]
        trunk = trunk[: self._positions]
        rng.shuffle(branches)
        while branches and len(trunk) + sum(len(b.ids) for b in branches) > self._most_tokens:
            branches.pop()
        return [Segment(trunk, [0] + [1] * (len(trunk) - 1)), *branches]
