"""`make soak`: a mixed load on a real service for a long time, and a fault every so often.

`python tests/soak/run.py [--minutes M] [--every SECONDS] [--faults all|wire] [--seed N] [--tp N]
[--model PATH] [--workers N] [--limit-mib-per-hour MIB]`. Without a model it is a small one of
random weights. Each answer is held against the undisturbed one. After each fault the load pauses:
every request has to have ended, and blocks, slots, threads, descriptors and sockets have to be back
where they were; then it goes on. With `--faults wire` no process is ended, so that the memory of
each can be followed over the whole run. Exits with 1 if anything was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkpoints import make_checkpoint
from faults.load import MixedLoad
from router.fault_proxy import FaultProxy
from soak.cases import cases_of
from soak.nemesis import FAULTS, Surroundings, schedule
from soak.record import Record
from soak.site import Site
from soak.watch import Watch


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", allow_abbrev=False)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0)
    add("--every", type=float, default=60.0, metavar="SECONDS", help="from fault to fault")
    add("--faults", choices=("all", "wire"), default="all")
    add("--seed", type=int, default=0)
    add("--tp", type=int, default=2)
    add("--model", type=Path, help="a checkpoint's folder")
    add("--workers", type=int, default=8)
    add("--limit-mib-per-hour", type=float, default=2.0, help="of the slope's upper bound")
    return parser.parse_args(arguments)


async def soak(options: argparse.Namespace, folder: Path) -> Record:
    """The whole run."""
    model = options.model or make_checkpoint(folder / "model", positions=2048)
    site = Site(model, folder, options.tp)
    record = Record(options.limit_mib_per_hour)
    try:
        await site.start()
        proxy = FaultProxy(site.target)
        await proxy.start()
        load = MixedLoad(proxy.target, cases_of(options.model), options.workers, options.seed)
        await load.learn()
        record.tally = load.tally
        watch = Watch(site, record)
        await _run(options, load, Surroundings(site, proxy, random.Random(options.seed)), watch)
        proxy.close()
        await watch.end()
    finally:
        site.close()
    return record


async def _run(
    options: argparse.Namespace, load: MixedLoad, about: Surroundings, watch: Watch
) -> None:
    """Load, fault, more load, pause, look; again and again."""
    next_name = schedule(about.draw, {"wire"} if options.faults == "wire" else KINDS)
    record, ends_at = watch.record, time.monotonic() + 60 * options.minutes
    await watch.begin(load)
    while time.monotonic() < ends_at:
        cycle_began = time.monotonic()
        running = asyncio.create_task(load.run())
        await load.more(2 * options.workers)
        name = next_name()
        print(f"{record.elapsed_seconds:7.0f} s  {load.tally.ended_count:8d} requests  {name}")
        await FAULTS[name][1](about)
        began = time.monotonic()
        await load.more(2 * options.workers)
        record.recovered(name, time.monotonic() - began)
        await watch.sample_until(cycle_began + options.every)
        load.stop()
        await running
        await watch.calm(name)
        load.go_on()


KINDS = {kind for kind, _ in FAULTS.values()}


def main() -> int:
    options = parse(sys.argv[1:])
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        record = asyncio.run(soak(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(record.table())
    return 1 if record.misses() else 0


if __name__ == "__main__":
    sys.exit(main())
