"""People who type a stretch of a source file, key by key, slips and corrections included.

A person types in episodes: each is a place in a file, whose text from there on is taken out and
typed again. Everything is drawn from (seed, person, episode), so that any state of any person can
be had without those before it. Knows no clock: whoever asks waits.
"""

from __future__ import annotations

import re
from bisect import bisect, bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, islice
from typing import Annotated, NamedTuple

from santacoder_client.loadtest.data.bodies_python import line_starts
from santacoder_client.loadtest.data.corpus import Corpus
from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.file_options import (
    ContextChars,
    Folder,
    Language,
    MaxFiles,
    infill_prompt,
    without_folder,
)
from santacoder_client.loadtest.data.lengths import NewTokens
from santacoder_client.loadtest.data.settings import Seed, Setting, described, json_of, real
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.data.splits import Split, prefix_share
from santacoder_client.loadtest.data.stamp import stamp_of

EPISODE_KEYS = 200
"""States of an episode; a person then goes to another place."""
EPISODE_CHARS = 1000
OTHERS = 64
OTHERS_EPISODES = 4
"""Whose keys, and how many, prompts are where no editor model asks for a person's."""
WITHIN_WORD_SECONDS = 0.11
BETWEEN_WORDS_SECONDS = 0.22
LINE_END_SECONDS = 1.1
NEW_PLACE_SECONDS = 4.0
NOTICE_SECONDS = 0.45
"""Medians of lognormal pauses before a key: about 6 keys/s in a word, 60 words a minute in all."""
SPREAD = 0.45
SLIP_SHARE = 0.025
"""Of all keys: wrong ones, taken back after up to `LONGEST_SLIP` of them."""
LONGEST_SLIP = 3
_KEY = re.compile(r"(?:\r\n|\n|\r)[ \t]*|\A[ \t]+|.", re.DOTALL)
"""One key's text: an end of line brings the next line's indentation, as editors do."""
_LETTERS = "etaoinshrdlu"

TypingSpeed = Annotated[
    float, Setting(real(0.01, 100), "1", "X", "of the people who type: 2 is twice as fast")
]


class Keystroke(NamedTuple):
    """What the editor holds after a key, and how long the person waited before it."""

    delay_seconds: float
    prefix: str
    suffix: str


@dataclass(frozen=True, slots=True)
class KeystrokesOptions:
    """What `--data keystrokes` may be told."""

    files: Folder
    language: Language
    max_files: MaxFiles
    typing_speed: TypingSpeed
    context_chars: ContextChars
    new_tokens: NewTokens
    seed: Seed


class KeystrokesSource:
    """What editors hold while people type."""

    name = "keystrokes"
    schedule = None

    def __init__(self, options: KeystrokesOptions, corpus: Corpus) -> None:
        self._options = options
        self._files = corpus.files
        # A memory, not a state: an episode is the same whenever it is asked for.
        self._episode = lru_cache(maxsize=512)(self._type)
        self.options: Mapping[str, object] = {
            **described(options),
            "files_used": len(corpus.files),
            "files_left_out": dict(corpus.skipped),
        }
        contents = ((file.path, file.text.encode()) for file in corpus.files)
        self.sha256 = stamp_of(self.name, without_folder(json_of(options)), contents)

    def keystrokes(self, person: int) -> Iterator[Keystroke]:
        """A person's keys from the beginning, for ever."""
        for number in count():
            episode = self._episode(person, number)
            for key in episode.keys:
                cut = self._cut(episode, key)
                yield Keystroke(key.delay_seconds, cut.prefix, cut.suffix)

    def pauses(self, person: int) -> Iterator[float]:
        """The delays of `keystrokes` alone."""
        for number in count():
            yield from (key.delay_seconds for key in self._episode(person, number).keys)

    def state(self, person: int, number: int) -> Prompt:
        """What a person's editor asks with after key `number`."""
        episode = self._episode(person, number // EPISODE_KEYS)
        cut = self._cut(episode, episode.keys[number % EPISODE_KEYS])
        draws = Draws(self.name, self._options.seed, "answer", person, number)
        prompt = infill_prompt(cut, "keystroke", self._options.new_tokens.draw(draws))
        return replace(prompt, expected=None)  # what comes is not all typed again

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`: any key of anybody."""
        draws = Draws(self.name, self._options.seed, "prompt", index)
        return self.state(draws.below(OTHERS), draws.below(OTHERS_EPISODES * EPISODE_KEYS))

    def _cut(self, episode: _Episode, key: _Key) -> Split:
        prefix = episode.before + episode.stretch[: key.done_chars] + key.wrong
        share = prefix_share(self._options.context_chars)
        return Split(prefix[max(len(prefix) - share, 0) :], "", episode.after)

    def _type(self, person: int, episode: int) -> _Episode:
        """One episode: always the same number of keys."""
        draws = Draws(self.name, self._options.seed, "episode", person, episode)
        text = self._files[draws.below(len(self._files))].text
        starts = line_starts(text)
        # With enough behind it to type; a short file is typed from its beginning.
        last = len(text) - EPISODE_CHARS
        begin = starts[draws.below(max(bisect(starts, last), 1))]
        stretch = text[begin : begin + EPISODE_CHARS]
        most_chars = self._options.context_chars
        share = prefix_share(most_chars)
        # Room to type in, from a line's beginning on: as in good editors, the prefix then grows
        # at its end alone, and what the server has cached of it stays of use.
        room = share // 3
        oldest = max(begin - (share - room), 0)
        return _Episode(
            before=text[starts[bisect_left(starts, oldest)] : begin],
            stretch=stretch,
            after=text[begin + len(stretch) :][: most_chars - share],
            keys=tuple(islice(self._keys(stretch, draws), EPISODE_KEYS)),
        )

    def _keys(self, stretch: str, draws: Draws) -> Iterator[_Key]:
        """What a person types, with the pauses drawn."""
        median_seconds = NEW_PLACE_SECONDS
        for key in _typed(stretch, draws):
            # Of the first key: the look for the place.
            median_seconds = max(median_seconds, key.delay_seconds)
            pause = draws.lognormal(median_seconds, SPREAD) / self._options.typing_speed
            yield replace(key, delay_seconds=pause)
            median_seconds = 0.0


@dataclass(frozen=True, slots=True)
class _Key:
    delay_seconds: float
    done_chars: int
    """How much of the stretch stands there."""
    wrong: str = ""
    """What stands behind it by mistake."""


@dataclass(frozen=True, slots=True)
class _Episode:
    before: str
    stretch: str
    after: str
    keys: tuple[_Key, ...]


def _typed(stretch: str, draws: Draws) -> Iterator[_Key]:
    """The keys of a stretch with their median pauses.

    A stretch that is short is typed again, so that every episode is long enough.
    """
    while True:
        for match in _KEY.finditer(stretch):
            # Not at the very beginning: taken back there, it could leave an empty file.
            if match.start() and draws.uniform() < SLIP_SHARE:
                yield from _slip(match.start(), draws)
            pause = _median_pause(stretch[: match.start()], match[0])
            yield _Key(pause, match.end())


def _slip(done_chars: int, draws: Draws) -> Iterator[_Key]:
    """Some wrong keys, then as many deletions."""
    wrong = ""
    for _ in range(draws.between(1, LONGEST_SLIP)):
        wrong += _LETTERS[draws.below(len(_LETTERS))]
        yield _Key(WITHIN_WORD_SECONDS, done_chars, wrong)
    for left in range(len(wrong) - 1, -1, -1):
        noticed = left == len(wrong) - 1
        yield _Key(NOTICE_SECONDS if noticed else WITHIN_WORD_SECONDS, done_chars, wrong[:left])


def _median_pause(done: str, key: str) -> float:
    """Longer before a new line's first key, and at the borders of words."""
    if done.rstrip(" \t").endswith(("\n", "\r")):
        return LINE_END_SECONDS
    within = (key.isalnum() or key == "_") and (done[-1:].isalnum() or done[-1:] == "_")
    return WITHIN_WORD_SECONDS if within else BETWEEN_WORDS_SECONDS
