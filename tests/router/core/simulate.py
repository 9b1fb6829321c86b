"""Runs the scheduler in simulated worlds, one a seed, and checks its invariants at every event.

    python tests/router/core/simulate.py --seed N [--verbose]     one seed, with its last events
    python tests/router/core/simulate.py --seeds 5000 [--first N] many, until one fails

Everything that happens follows from the seed: configuration, arrivals, options, cancels, deadlines,
delays, cut leases, rows gone bad, deaths of the shard group.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# Run as a script, only this file's own folder would be searched.
sys.path.insert(0, str(Path(__file__).parents[2]))

from router.core.simulated_model import Violation
from router.core.simulated_worlds import digests_of
from router.core.simulation import Outcome, Simulation

# Seeds that a process takes at a time.
CHUNK_SIZE = 20


def run_seed(seed: int, verbose: bool = False) -> Outcome:
    """Runs one seed. A Violation carries seed, world and last events."""
    simulation: Simulation | None = None
    with digests_of(seed):
        try:
            simulation = Simulation(seed)
            outcome = simulation.run()
        except Exception as error:
            what = f"seed {seed}: {type(error).__name__}: {error}"
            replay = f"replay: python tests/router/core/simulate.py --seed {seed}"
            story = simulation.story() if simulation else ""
            raise Violation("\n".join((story, what, replay))) from error
    if verbose:
        print(simulation.story())
    return outcome


def run_seeds(seeds: range, jobs: int) -> Iterator[Outcome]:
    """The outcomes of many seeds in their order, worked out by `jobs` processes."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(run_seed, seeds, chunksize=CHUNK_SIZE)
        finally:
            pool.shutdown(cancel_futures=True)


def main() -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Simulates the scheduler from seeds.")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--first", type=int, default=0, help="first of many seeds (default: 0)")
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds (default: 2000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--verbose", action="store_true", help="print the last events in any case")
    options = parser.parse_args()
    try:
        if options.seed is not None:
            outcome = run_seed(options.seed, options.verbose)
            print(f"seed {options.seed} holds: {outcome}")
        else:
            _run_many(range(options.first, options.first + options.seeds), options.jobs)
    except Violation as violation:
        print(violation)
        return 1
    return 0


def _run_many(seeds: range, jobs: int) -> None:
    started = time.perf_counter()
    outcomes = list(run_seeds(seeds, jobs))
    seconds = time.perf_counter() - started
    fewest = min(outcome.event_count for outcome in outcomes)
    event_count = sum(outcome.event_count for outcome in outcomes)
    token_count = sum(outcome.token_count for outcome in outcomes)
    print(
        f"seeds {seeds.start} to {seeds.stop - 1} hold: {event_count} events, at least {fewest}"
        f" a seed, {token_count} tokens, {seconds:.0f} s with {jobs} processes"
    )


if __name__ == "__main__":
    sys.exit(main())
