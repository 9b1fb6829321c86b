"""Editors whose keys come from data: they ask at pauses, with what then stands there."""

from __future__ import annotations

from itertools import accumulate, count, islice
from pathlib import Path

import pytest
from load_data import source

from santacoder_client.loadtest.data.keystrokes import KeystrokesSource
from santacoder_client.loadtest.editor import Keystroke, keystrokes
from santacoder_client.loadtest.load import Load, Phases, Share

LOAD = Load(
    "editor",
    editor_count=4,
    typing="data",
    debounce_seconds=0.15,
    phases=Phases(warm_up_seconds=0, steady_seconds=60, cool_down_seconds=0),
)


@pytest.fixture
def typist(tmp_path: Path) -> KeystrokesSource:
    (tmp_path / "a.py").write_text("def f(value):\n    return value + 1\n\n\n" * 100)
    made = source("--data", "keystrokes", "--files", tmp_path)
    assert isinstance(made, KeystrokesSource)
    return made


ALONE = Share()


def asked(typist: KeystrokesSource, share: Share = ALONE) -> list[Keystroke]:
    return list(keystrokes(LOAD, share, typist))


def test_an_editor_asks_when_no_key_followed_for_the_debounce(typist: KeystrokesSource) -> None:
    everybody = asked(typist)
    for person in range(4):
        times = [each for each in everybody if each.person == person]
        first, *pauses = islice(typist.pauses(person), 2000)
        gaps = dict(zip(count(), pauses, strict=False))
        moments = list(accumulate(pauses, initial=0.0))
        begun_at = times[0].due - 0.15 - moments[times[0].number // 4]
        assert 0 <= begun_at <= first, "within the first pause, so that people start apart"
        expected = [number for number, gap in gaps.items() if gap >= 0.15][: len(times)]
        assert [each.number // 4 for each in times] == expected
        for each in times:
            assert each.due == pytest.approx(begun_at + moments[each.number // 4] + 0.15)


def test_some_keys_ask_and_some_do_not(typist: KeystrokesSource) -> None:
    numbers = [each.number // 4 for each in asked(typist) if each.person == 0]
    assert 0.2 < len(numbers) / numbers[-1] < 0.8


def test_it_is_in_order_of_time_within_the_phases_and_numbers_are_unique(
    typist: KeystrokesSource,
) -> None:
    times = asked(typist)
    assert times == sorted(times, key=lambda each: each.due)
    assert 40 < times[-1].due < 60
    assert len({each.number for each in times}) == len(times)


def test_workers_together_do_what_one_does(typist: KeystrokesSource) -> None:
    parts = [each for worker in range(3) for each in asked(typist, Share(worker, 3))]
    assert sorted(parts) == sorted(asked(typist))


def test_the_state_asked_with_grows_by_what_was_typed_between(typist: KeystrokesSource) -> None:
    numbers = [each.number // 4 for each in asked(typist) if each.person == 2][:20]
    keys = list(islice(typist.keystrokes(2), numbers[-1] + 1))
    for number in numbers:
        prompt = typist.state(2, number)
        assert (prompt.prefix, prompt.suffix) == keys[number][1:]


def test_without_the_data_nobody_knows_when_keys_are_hit() -> None:
    assert list(keystrokes(LOAD, Share())) == []


def test_a_result_says_whence_the_pauses_came() -> None:
    assert LOAD.described()["typing"] == "data"
    assert "habits" not in LOAD.described() and LOAD.described()["debounce_seconds"] == 0.15
    assert "debounce_seconds" not in Load("editor", editor_count=1).described()
    assert "typing" not in Load("poisson", per_second=1).described()
    assert Load.from_json(LOAD.to_json()) == LOAD
