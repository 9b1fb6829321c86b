"""The judge of histories: each way in which one can be wrong is one that it sees."""

from __future__ import annotations

import pytest
from faults.history import Answer, Entry, Judge, What, truth_of

TRUTH = {"a": [Answer((1, 2, 3, 4), "LENGTH")], "b": [Answer((5,), "STOP"), Answer((6,), "STOP")]}


def delta(request: str, start: int, *ids: int, choice: int = 0) -> Entry:
    return Entry(What.DELTA, request, choice, start, ids)


def end(request: str, reason: str, choice: int = 0) -> Entry:
    return Entry(What.FINISHED, request, choice, reason=reason)


GOOD = [
    Entry(What.ASKED, "a"),
    Entry(What.ASKED, "b"),
    delta("a", 0, 1, 2),
    Entry(What.FAULT, "kill"),
    delta("b", 0, 6, choice=1),
    delta("b", 0, 5),
    end("b", "STOP", 1),
    delta("a", 2, 3, 4),
    end("b", "STOP"),
    end("a", "LENGTH"),
]


def test_a_good_history_has_nothing_wrong_and_tells_the_truth() -> None:
    assert Judge(TRUTH).hear(GOOD) == []
    assert truth_of(GOOD) == TRUTH


WRONG = {
    "an id is lost": ("leaves ids out", {7: delta("a", 3, 4)}),
    "an id comes twice": ("repeats ids", {7: delta("a", 1, 2, 3, 4)}),
    "ids change places": ("other ids", {7: delta("a", 2, 4, 3)}),
    "another's id comes": ("other ids", {5: delta("b", 0, 6)}),
    "an end is missing": ("never ends", {9: Entry(What.FAULT, "nothing")}),
    "an end is too early": ("before its last id", {7: Entry(What.FAULT, "nothing")}),
    "there are two ends": ("after the end", {3: end("b", "STOP", 1)}),
    "something follows the end": ("after the end", {8: end("a", "LENGTH")}),
    "another end is told": ("ends with STOP", {9: end("a", "STOP")}),
    "it fails": ("fails with SHARD_LOST", {9: Entry(What.FAILED, "a", reason="SHARD_LOST")}),
    "a stranger is told of": ("not asked for", {0: Entry(What.FAULT, "nothing")}),
    "it is asked twice": ("asked twice", {3: Entry(What.ASKED, "a")}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str) -> None:
    words, changes = WRONG[name]
    history = [changes.get(place, entry) for place, entry in enumerate(GOOD)]
    assert any(words in violation for violation in Judge(TRUTH).hear(history))


def test_who_may_fail_may_not_be_told_wrong_ids() -> None:
    failed = Entry(What.FAILED, "a", reason="POISON_REQUEST")
    judge = Judge(TRUTH, may_fail=["a"])
    assert judge.hear([*GOOD[:7], *GOOD[8:9], failed]) == []
    judge = Judge(TRUTH, may_fail=["a"])
    assert judge.hear([*GOOD[:7], delta("a", 2, 9), *GOOD[8:9], failed]) != []
