"""Ranks that part ways are seen; ranks that agree leave nothing behind."""

from __future__ import annotations

import pytest

from santacoder_router.digests import DigestLedger, Divergence


def test_ranks_that_agree_are_forgotten_plan_by_plan() -> None:
    ledger = DigestLedger(2)
    for plan_number in range(1, 100):
        for rank in (0, 1):
            ledger.accepted(rank, plan_number, b"a%d" % plan_number)
            ledger.ran(rank, plan_number, 1, False, b"x")
            ledger.ran(rank, plan_number, 2, True, b"y")
        assert len(ledger) == 0


@pytest.mark.fault("S11")
def test_another_digest_of_the_commands_is_a_divergence() -> None:
    ledger = DigestLedger(3)
    ledger.accepted(0, 1, b"a")
    ledger.accepted(1, 1, b"a")
    with pytest.raises(Divergence, match=r"plan 1, frames received: rank 2 differs from rank 0"):
        ledger.accepted(2, 1, b"b")


@pytest.mark.fault("S11")
def test_another_digest_of_the_ids_is_a_divergence() -> None:
    ledger = DigestLedger(2)
    ledger.ran(1, 4, 2, True, b"a")
    with pytest.raises(Divergence, match="plan 4"):
        ledger.ran(0, 4, 2, True, b"b")


@pytest.mark.fault("S11")
def test_a_lease_that_ends_at_another_step_is_a_divergence() -> None:
    ledger = DigestLedger(2)
    ledger.ran(0, 4, 3, True, b"a")
    with pytest.raises(Divergence, match="number of steps"):
        ledger.ran(1, 4, 2, True, b"b")
