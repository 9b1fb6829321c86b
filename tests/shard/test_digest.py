"""Equal on every rank whatever the timing, and different as soon as commands or ids differ."""

from __future__ import annotations

from santacoder_shard.digest import CommandDigest
from santacoder_shard.step import RowOutcome, RowState, StepOutcome


def outcome(plan_number: int, *token_ids: int, final: bool = True) -> StepOutcome:
    return StepOutcome(plan_number, 0, 1, final, (RowOutcome(token_ids, RowState.RUNNING),), 0.1)


def test_equal_whether_a_plan_arrives_before_or_after_the_earlier_result() -> None:
    early, late = CommandDigest(), CommandDigest()
    early.accept(1, b"one")
    early_two = early.accept(2, b"two")
    early.report(outcome(1, 7))
    late.accept(1, b"one")
    late.report(outcome(1, 7))
    assert late.accept(2, b"two") == early_two
    assert late.report(outcome(2, 8)) == early.report(outcome(2, 8))


def test_another_id_changes_this_digest_and_every_later_one() -> None:
    first, second = CommandDigest(), CommandDigest()
    for digest in (first, second):
        digest.accept(1, b"one")
        digest.accept(2, b"two")
    assert first.report(outcome(1, 7)) != second.report(outcome(1, 9))
    assert first.report(outcome(2, 5)) != second.report(outcome(2, 5))


def test_another_frame_changes_the_accepted_digest_and_the_result() -> None:
    first, second = CommandDigest(), CommandDigest()
    assert first.accept(1, b"one") != second.accept(1, b"uno")
    assert first.report(outcome(1, 7)) != second.report(outcome(1, 7))


def test_nothing_is_kept_of_a_plan_that_has_ended() -> None:
    digest = CommandDigest()
    digest.accept(1, b"one")
    digest.report(outcome(1, 7, final=False))
    digest.report(outcome(1, 8))
    try:
        digest.report(outcome(1, 9))
    except KeyError:
        return
    raise AssertionError("a plan that has ended was still known")
