"""`make bench-gpu`: every GPU claim, ours beside transformers, as one table. Part by part.

`python benchmarks/gpu.py [--part NAME]... [--json FILE [--again]]`. With --json, what the file has
is not measured again, so that a run can be cut into several. Exits with 1 if a figure is not what
it must be (scaled to this GPU's memory), or a part failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import gpu_parts
import gpu_table
from gpu_record import OtherDevice, Record

LIMIT_SECONDS = 480.0
CLIENT_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Part:
    """Where it is measured, and the parts whose figures it needs."""

    where: str
    needs: tuple[str, ...] = ("ceilings",)


PARTS = {
    "ceilings": Part("gpu_ceilings:measure", ()),
    "decode": Part("gpu_decode:measure"),
    "prefill": Part("gpu_prefill:measure"),
    "peers": Part("gpu_peers:measure"),
    "peers-compile": Part("gpu_peers:measure_compiled"),
    "job": Part("gpu_served_many:measure_in_process"),
    "invariance": Part("gpu_invariance:measure"),
    "served-one": Part("gpu_served_one:measure", ("ceilings", "decode")),
    "served-many": Part("gpu_served_many:measure", ("ceilings", "job")),
    "mixed": Part("gpu_mixed:measure"),
    "start": Part("gpu_start:measure"),
    "tp2": Part("gpu_ranks:measure"),
}


def main() -> None:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="santacoder-bench-") as folder:
        settings = gpu_parts.Settings(
            checkpoint=options.checkpoint or Path(folder) / "checkpoint",
            layer_count=options.layers,
            serve_arguments=tuple(options.serve),
            client_process_count=options.clients,
        )
        facts = cast(
            dict[str, object], gpu_parts.call("gpu_ceilings:facts", settings, LIMIT_SECONDS)
        )
        if not facts["device"]:
            sys.exit(f"error: no CUDA device here; got torch {facts['versions']}")
        facts |= {"command": _command(), "date": _now(), "layers": options.layers}
        try:
            record = Record(options.json, facts)
        except OtherDevice as error:
            sys.exit(f"error: --json: {error}")
        failed = _run_parts(_wanted(options, record), settings, record)
    device = str(facts["device"])
    if "copy_TBps" in record.values:
        print(f"\n{_command()}\n\n{gpu_table.table(device, record.values)}")
        missed = gpu_table.missed(device, record.values)
        print(f"\nmissed: {', '.join(missed) or 'nothing that was measured'}")
    else:
        missed = []
    print(f"failed: {', '.join(failed) or 'nothing'}")
    sys.exit(bool(missed or failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the GPU engine beside transformers.")
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    add("--json", type=Path, help="read what is there, write what is measured")
    add("--again", action="store_true", help="measure parts that the file has, too")
    add("--checkpoint", type=Path, help="where the random checkpoint is kept; made if missing")
    add("--layers", type=int, default=24, help="fewer for a quick look (default 24: real shape)")
    add("--serve", action="append", default=[], help="an argument more for santacoder-serve")
    add("--clients", type=int, default=CLIENT_PROCESSES, help="processes of clients (default 8)")
    return parser


def _wanted(options: argparse.Namespace, record: Record) -> list[str]:
    """Parts in the table's order, with those that they need, without those that are there."""
    asked = list(options.part or PARTS)
    for name in asked:
        asked += [need for need in PARTS[name].needs if need not in asked]
    chosen = set(options.part or PARTS)
    return [
        name
        for name in PARTS
        if name in asked and (name not in record.parts or (options.again and name in chosen))
    ]


def _run_parts(names: list[str], settings: gpu_parts.Settings, record: Record) -> list[str]:
    """Measure one part after the other; the names of those that failed."""
    failed: list[str] = []
    for name in names:
        print(f"== {name}", flush=True)
        begin = time.perf_counter()
        known = replace(settings, known=dict(record.values))
        try:
            values = gpu_parts.call(PARTS[name].where, known, LIMIT_SECONDS)
        except gpu_parts.Unavailable as reason:
            print(f"   not measured: {reason}", flush=True)
            continue
        except gpu_parts.PartFailed as error:
            print(f"   failed: {error}", flush=True)
            failed.append(name)
            continue
        seconds = round(time.perf_counter() - begin, 1)
        record.add(name, values, {"seconds": seconds, "date": _now(), "command": _command()})
        print(f"   {seconds} s", flush=True)
    return failed


def _command() -> str:
    return " ".join(["python", *(os.path.relpath(sys.argv[0]), *sys.argv[1:])])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
