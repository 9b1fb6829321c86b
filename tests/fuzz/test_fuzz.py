"""Foreign bytes to every reader, for a few seconds; and that the fuzzer sees what it should."""

from __future__ import annotations

import random
import time

import pytest
from fuzz import campaign, fuzz
from fuzz.campaign import run
from fuzz.mutations import mutated, noise
from fuzz.target import Target


def test_no_reader_fails_on_foreign_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--raw 40000 --structured 4800 --files 1400 --live 60"
    assert fuzz.main(words.split()) == 0, capsys.readouterr().out


def faulty(data: bytes) -> None:
    if b"\xff" in data and len(data) > 2:
        raise KeyError("a bug")


def endless(data: bytes) -> None:
    while b"\xff" in data:
        pass


class Panic(BaseException):
    """As some native libraries raise."""


def panicking(data: bytes) -> None:
    try:
        if b"\xff" in data:
            raise Panic
    except Exception:
        return


@pytest.mark.parametrize(
    ("take", "error", "smallest_bytes"),
    [(faulty, "KeyError at test_fuzz.py", 3), (panicking, "Panic at test_fuzz.py", 1)],
)
def test_a_bug_is_found_made_small_and_found_again(
    take: object, error: str, smallest_bytes: int
) -> None:
    target = Target("planted", noise(), take)  # type: ignore[arg-type]
    tally = run(target, 10_000, seed=3)
    failure = tally.failures[0]
    assert failure.error.startswith(error)
    assert len(failure.smallest) == smallest_bytes and b"\xff" in failure.smallest
    again = run(target, 1000, seed=3, first_batch=failure.batch)
    assert again.failures[0].found == failure.found
    assert "FAILED" in tally.line()


def test_an_input_without_an_end_is_a_hang_and_other_processes_time_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "HANG_SECONDS", 0.2)
    target = Target("planted", lambda source: b"\xff", endless)
    tally = run(target, 1, seed=0)
    assert tally.failures[0].error == "Hang"

    def waits(_data: bytes) -> None:
        time.sleep(0.4)

    assert run(Target("planted", noise(), waits), 1, seed=0).failures == []


def test_equal_seeds_give_equal_inputs_and_others_do_not() -> None:
    make = mutated((b'{"a": 12}', bytes(range(64))), is_text=True)

    def inputs(seed: int) -> list[bytes]:
        source = random.Random(seed)
        return [make(source) for _ in range(200)]

    assert inputs(1) == inputs(1) != inputs(2)
