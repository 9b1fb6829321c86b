"""People who type: real text grows key by key, with people's pauses and slips."""

from __future__ import annotations

import statistics
from itertools import islice, pairwise
from pathlib import Path

import pytest
from load_data import prepared, prompts

from santacoder_client.loadtest.data.keystrokes import (
    EPISODE_KEYS,
    LINE_END_SECONDS,
    WITHIN_WORD_SECONDS,
    Keystroke,
    KeystrokesSource,
)
from santacoder_client.loadtest.data.options import build_source
from santacoder_client.loadtest.data.source import ModelFacts

CODE = "".join(
    f"def function_{number}(argument):\n    total = argument + {number}\n    return total\n\n\n"
    for number in range(30)
)


def typing(folder: Path, *argv: object, text: str = CODE) -> KeystrokesSource:
    (folder / "a.py").write_bytes(text.encode())
    read = prepared("--data", "keystrokes", "--files", folder, *argv)
    made = build_source(read, ModelFacts(1000))
    assert isinstance(made, KeystrokesSource)
    return made


def keys_of(made: KeystrokesSource, person: int, count: int = EPISODE_KEYS) -> list[Keystroke]:
    return list(islice(made.keystrokes(person), count))


def test_most_keys_add_to_the_file_and_some_take_back(tmp_path: Path) -> None:
    made = typing(tmp_path, "--context-chars", 100_000)
    longer = shorter = 0
    for person in range(20):
        for before, after in pairwise(keys_of(made, person)):
            assert after.suffix == before.suffix
            if len(after.prefix) < len(before.prefix):
                shorter += 1
                assert before.prefix[:-1] == after.prefix
            else:
                longer += 1
                assert after.prefix.startswith(before.prefix)
    assert shorter > 20
    assert longer > 10 * shorter


def test_what_is_typed_and_not_taken_back_is_the_file(tmp_path: Path) -> None:
    made = typing(tmp_path, "--context-chars", 100_000)
    true = sum(CODE.startswith(key.prefix) for key in keys_of(made, 3))
    assert true > 0.8 * EPISODE_KEYS
    assert all(CODE.endswith(key.suffix) for key in keys_of(made, 3))


def test_an_end_of_line_brings_the_next_lines_indentation_with_it(tmp_path: Path) -> None:
    made = typing(tmp_path)
    for key in keys_of(made, 0) + keys_of(made, 1):
        assert not key.prefix.endswith(("\n ", "\n  ", "\n   ")), "half an indentation"


def test_a_crlf_is_one_key(tmp_path: Path) -> None:
    made = typing(tmp_path, text=CODE.replace("\n", "\r\n"))
    assert not any(key.prefix.endswith("\r") for key in keys_of(made, 0))


def test_pauses_are_those_of_people_and_longest_at_line_ends(tmp_path: Path) -> None:
    made = typing(tmp_path)
    within, line_ends = [], []
    for person in range(20):
        for before, after in pairwise(keys_of(made, person)):
            if before.prefix.endswith("\n    "):
                line_ends.append(after.delay_seconds)
            elif before.prefix[-1:].isalpha() and after.prefix[-1:].isalpha():
                within.append(after.delay_seconds)
    assert min(within) > 0
    assert abs(statistics.median(within) / WITHIN_WORD_SECONDS - 1) < 0.1
    assert abs(statistics.median(line_ends) / LINE_END_SECONDS - 1) < 0.4


def test_typing_speed_divides_every_pause_and_changes_no_text(tmp_path: Path) -> None:
    slow = keys_of(typing(tmp_path), 0)
    fast = keys_of(typing(tmp_path, "--typing-speed", 4), 0)
    assert [key[1:] for key in slow] == [key[1:] for key in fast]
    for one, other in zip(slow, fast, strict=True):
        assert other.delay_seconds == pytest.approx(one.delay_seconds / 4)


def test_any_state_can_be_had_without_those_before_it(tmp_path: Path) -> None:
    keys = keys_of(typing(tmp_path), 5, 3 * EPISODE_KEYS)
    for number in (550, 0, 199, 200, 201, 599):
        prompt = typing(tmp_path).state(5, number)
        assert (prompt.prefix, prompt.suffix) == keys[number][1:]
        assert prompt.kind == "infill" and prompt.family == "keystroke"
        assert prompt.expected is None


def test_people_are_at_different_places(tmp_path: Path) -> None:
    made = typing(tmp_path)
    assert len({key.suffix for person in range(20) for key in keys_of(made, person, 1)}) > 10


def test_context_is_limited(tmp_path: Path) -> None:
    for prompt in prompts(typing(tmp_path, "--context-chars", 300)):
        assert len(prompt.prefix) + len(prompt.suffix) <= 300


def test_the_window_does_not_slide_while_a_person_types_on(tmp_path: Path) -> None:
    """Where it slid with every key, no prefix cache could ever help."""
    made = typing(tmp_path)
    for person in range(20):
        first, *others = keys_of(made, person)
        begin = first.prefix[:100]
        assert all(key.prefix.startswith(begin) for key in others)
        assert {key.suffix for key in others} == {first.suffix}
        assert "\n" + begin[:30] in "\n" + CODE, "it begins with a line"


@pytest.mark.parametrize("text", ["x", "\n\nx", "x\n", "\r\n\r\ny"])
def test_the_shortest_files_are_typed_for_ever_and_never_leave_nothing(
    tmp_path: Path, text: str
) -> None:
    made = typing(tmp_path, text=text)
    assert all(key.prefix + key.suffix for key in keys_of(made, 0, 1000))
