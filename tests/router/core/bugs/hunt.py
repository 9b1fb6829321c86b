"""Runs the simulation on one seeded bug after another and counts those that it finds.

    python tests/router/core/bugs/hunt.py [--seeds 200] [--only WORDS] [--jobs 2]

Each bug lives in a process of its own, in memory. Exits with 1 if less than 95 percent are found,
with 2 if the simulation finds something where there is no bug.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

# Run as a script, only this file's own folder would be searched.
sys.path.insert(0, str(Path(__file__).parents[3]))

from router.core.bugs.bug import NO_BUG, Bug, install
from router.core.bugs.catalogue import CATALOGUE

# Processor time of one seed, which takes a hundredth of it unless the bug never ends.
SECONDS_A_SEED = 4.0
SHARE_TO_FIND = 0.95


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a bug: the seeds it took, and the invariant or error; neither if it survived."""

    bug: Bug
    seed_count: int
    found_by: str | None


class SeedNeverEnds(Exception):
    """A seed took a hundred times the processor time it should."""


def hunt(bug: Bug, num_seeds: int) -> Finding:
    """Runs seeds on the bug until one finds it. Needs a process that has no scheduler yet."""
    install(bug)
    # Not before: the scheduler comes with it.
    from router.core.simulate import run_seed
    from router.core.simulated_model import Violation

    signal.signal(signal.SIGVTALRM, _give_up)
    for seed in range(num_seeds):
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_A_SEED)
        try:
            run_seed(seed)
        except Violation as violation:
            cause = violation.__cause__
            what = str(cause).split(":")[0] if isinstance(cause, Violation) else repr(cause)
            return Finding(bug, seed + 1, what)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    return Finding(bug, num_seeds, None)


def hunt_all(bugs: Iterable[Bug], num_seeds: int, jobs: int) -> Iterator[Finding]:
    """The findings, in the bugs' order."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with pool:
        futures = [pool.submit(hunt, bug, num_seeds) for bug in bugs]
        for future in futures:
            yield future.result()


def report(findings: Iterable[Finding]) -> bool:
    """Prints a line a bug and the sum; whether enough were found."""
    total_count = 0
    survivors: list[Finding] = []
    for finding in findings:
        total_count += 1
        if finding.found_by is None:
            survivors.append(finding)
        seeds = f"{finding.seed_count} seed{'s' if finding.seed_count > 1 else ''}"
        print(
            f"{seeds:>9}  {finding.found_by or 'NOT FOUND':<44.44}  {finding.bug.title}", flush=True
        )
    found_count = total_count - len(survivors)
    print(f"found {found_count} of {total_count}, {100 * found_count / total_count:.1f} percent")
    for finding in survivors:
        print(f"survived {finding.seed_count} seeds: {finding.bug.title}")
    return found_count >= SHARE_TO_FIND * total_count


def _give_up(number: int, frame: FrameType | None) -> None:
    raise SeedNeverEnds(f"{SECONDS_A_SEED:g} s of processor time")


def main() -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Hunts seeded bugs of the scheduler.")
    parser.add_argument("--seeds", type=int, default=200, help="most seeds a bug (default: 200)")
    parser.add_argument("--only", default="", help="bugs whose file and description hold this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    options = parser.parse_args()
    bugs = [bug for bug in CATALOGUE if options.only in bug.title]
    if not bugs:
        print(f"error: --only: no bug's title holds {options.only!r}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    (control,) = hunt_all([NO_BUG], options.seeds, 1)
    if control.found_by is not None:
        print(f"error: without a bug, seed {control.seed_count - 1}: {control.found_by}")
        return 2
    is_enough = report(hunt_all(bugs, options.seeds, options.jobs))
    print(f"{time.perf_counter() - started:.0f} s")
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
