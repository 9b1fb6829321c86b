"""The scheduler holds its invariants in 2,000 simulated worlds, each the same whenever it is run.

Knows nothing of the worlds themselves; see simulate.py for how to replay one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from router.core import simulate
from router.core.simulated_model import Violation

from santacoder_router.core.group import GroupState


@pytest.mark.fault("S1", "S15", "C2", "R13")
def test_invariants_hold_in_2000_seeds_of_at_least_350_events() -> None:
    outcomes = list(simulate.run_seeds(range(2000), os.cpu_count() or 1))
    assert len(outcomes) == 2000
    assert min(outcome.event_count for outcome in outcomes) >= 350


def test_the_same_seed_gives_the_same_plans_and_events_under_another_hash_seed() -> None:
    seeds = range(7000, 7003)
    here = [simulate.run_seed(seed).digest for seed in seeds]
    assert here == [simulate.run_seed(seed).digest for seed in seeds]
    assert len(set(here)) == len(here)
    code = (
        "from router.core import simulate; "
        f"print(*(simulate.run_seed(seed).digest for seed in {seeds!r}))"
    )
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env=dict(os.environ, PYTHONHASHSEED=hash_seed),
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.split() == here


def test_a_violation_names_its_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupState, "has_free_slot", property(lambda group: False))
    replay = r"seed 3: .*\nreplay: python tests/router/core/simulate.py --seed 3$"
    with pytest.raises(Violation, match=replay):
        simulate.run_seed(3)
