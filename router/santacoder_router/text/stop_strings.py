"""Finds stop strings in text that arrives in pieces, in time linear in the text (Aho-Corasick).

Of several stop strings in a text, the one that ends first wins; of those that end together, the
longest. The text before the match is the answer. Only what may still become a match is held back:
the longest end of the text that is a proper beginning of some stop string.

Knows characters; refuses to know tokens and bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopStrings:
    """The stop strings of a request as an automaton. Immutable; its choices share it.

    A state is a beginning of some stop string, numbered; state 0 is the empty one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if "" in stop:
            raise ValueError("a stop string is empty")
        self._next: list[dict[str, int]] = [{}]
        self._depth: list[int] = [0]
        self._match: list[str | None] = [None]
        for text in stop:
            self._add(text)
        self._fallback = [0] * len(self._next)
        self._link()

    def __bool__(self) -> bool:
        """Whether there is any stop string."""
        return len(self._next) > 1

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def depth(self, state: int) -> int:
        """How many of the last characters may still become a match."""
        return self._depth[state]

    def match(self, state: int) -> str | None:
        """The longest stop string that ends here, if one does."""
        return self._match[state]

    def _add(self, text: str) -> None:
        state = 0
        for character in text:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(None)
            state = self._next[state][character]
        self._match[state] = text

    def _link(self) -> None:
        """Point each state at its longest proper end that is a state too, shallow states first."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._next[state].items():
                self._fallback[child] = self.step(self._fallback[state], character)
                queue.append(child)
            if self._match[state] is None:
                self._match[state] = self._match[self._fallback[state]]


class StopScanner:
    """One text, watched for stop strings as it comes."""

    def __init__(self, stop: StopStrings) -> None:
        self._stop = stop
        self._state = 0
        self._held = ""
        self.matched: str | None = None
        """The stop string met, if one was; nothing is released after it."""

    def push(self, text: str) -> str:
        """Take more text; give back what can no longer belong to a stop string."""
        if not self._stop:
            return text
        if self.matched is not None:
            return ""
        for place, character in enumerate(text, start=1):
            self._state = self._stop.step(self._state, character)
            self.matched = self._stop.match(self._state)
            if self.matched is not None:
                return self._release(text[:place], len(self.matched))
        return self._release(text, self._stop.depth(self._state))

    def finish(self) -> str:
        """The text held back, when no more will come. Empty after a match."""
        return "" if self.matched is not None else self._release("", 0)

    def _release(self, text: str, held_count: int) -> str:
        text = self._held + text
        cut = len(text) - held_count
        self._held = text[cut:]
        return text[:cut]
