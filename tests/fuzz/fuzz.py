"""Foreign bytes to every reader of them: `make fuzz`. The same seed gives the same inputs.

    --raw N          bytes to the public and the private contract's parsers and checks
    --structured N   messages of the right types with any values
    --files N        weights, config, tokenizer, index, token file, JSONL
    --live N         calls and connections to a router on a real port
    --seconds S      at most, of all but the live ones
    --target WORDS --batch B   one batch of one target again, as a failure names it

Prints executions and rate of each target; exit status 1 if one failed, with its smallest input.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fuzz import file_targets, frame_targets, live, request_targets
from fuzz.campaign import BATCH, Tally, run
from fuzz.target import Target

MEMORY = Path("/dev/shm")
"""Files of a moment need no disk."""
MOST_BYTES = 3 << 30
"""What an input may make its reader allocate before that counts as a failure."""


def main(words: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _options(words)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        planned = _plan(options, folder)
        seconds = options.seconds / max(1, len(planned))
        tallies = [
            _told(run(target, count, options.seed, options.batch or 0, seconds))
            for target, count in planned
        ]
        problems = []
        if options.live:
            (folder / "live").mkdir()
            problems = asyncio.run(live.fuzz_live(folder / "live", options.live, options.seed))
            print(f"{'live calls and connections':<34}{options.live:>13,}  {problems or 'ok'}")
    failures = [(tally, failure) for tally in tallies for failure in tally.failures]
    for tally, failure in failures:
        print(f"\n{tally.target.name}, batch {failure.batch}: {failure.error}")
        print(f"  smallest input, {len(failure.smallest)} bytes: {failure.smallest[:2000]!r}")
        again = f"--seed {options.seed} --target '{tally.target.name}' --batch {failure.batch}"
        print(f'  again: make fuzz ARGS="{again}"')
    print(f"{sum(tally.executions for tally in tallies):,} executions, {len(failures)} failures")
    return 1 if failures or problems else 0


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default in (
        ("raw", 200_000),
        ("structured", 20_000),
        ("files", 3_500),
        ("live", 300),
    ):
        parser.add_argument(f"--{flag}", type=int, default=default, metavar="N")
    parser.add_argument("--seconds", type=float, default=math.inf, metavar="S")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--target", default="", metavar="WORDS")
    parser.add_argument("--batch", type=int, metavar="B")
    options = parser.parse_args(words)
    if options.target:
        options.live = 0
    return options


def _plan(options: argparse.Namespace, folder: Path) -> list[tuple[Target, int]]:
    """Every target and how often it is run; the counts are shared out evenly."""
    groups: tuple[tuple[tuple[Target, ...], int], ...] = (
        ((*request_targets.raw_targets(), *frame_targets.raw_targets()), options.raw),
        (
            (*request_targets.structured_targets(), *frame_targets.structured_targets()),
            options.structured,
        ),
        (file_targets.file_targets(folder) if options.files else (), options.files),
    )
    planned = [(target, total // len(targets)) for targets, total in groups for target in targets]
    if options.batch is not None:
        planned = [(target, BATCH) for target, _ in planned]
    return [(each, count) for each, count in planned if count and options.target in each.name]


def _told(tally: Tally) -> Tally:
    print(tally.line(), flush=True)
    return tally


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, resource.RLIM_INFINITY))
    # Or a panic of a Rust library takes a second, to name its own functions.
    os.environ["RUST_BACKTRACE"] = "0"
    sys.exit(main())
