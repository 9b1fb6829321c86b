"""`make bench`: every CPU claim in one run, ours beside transformers, as one table.

`python benchmarks/cpu.py [--part NAME]... [--checkpoint FOLDER] [--json FILE]`. Exits with 1 if a
goal is missed. Never more than one real-shape service and one transformers process live at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import decode
import memory
import plans
import prefix
import random_checkpoint
import startup
from figures import Figure, table, write_json
from peer import Peer
from service import Service

PARTS = ("decode", "prefix", "start", "plans", "memory")
DEMO_CHECKPOINT = Path(__file__).parents[1] / "models" / "demo" / "checkpoint"


def main() -> None:
    options = _parser().parse_args()
    parts = options.part or list(PARTS)
    begin = time.perf_counter()
    figures: list[Figure] = []
    if {"decode", "prefix", "memory"} & set(parts):
        if options.checkpoint is not None:
            figures += _real_shape(options, parts, options.checkpoint)
        else:
            with tempfile.TemporaryDirectory(prefix="santacoder-bench-") as folder:
                figures += _real_shape(options, parts, Path(folder))
    figures += _demo(options, parts)
    facts: dict[str, object] = {
        "command": " ".join(["python", *sys.argv]),
        "threads": options.threads,
        "layers": options.layers,
        "seconds": round(time.perf_counter() - begin),
    }
    print(f"\n{facts['command']}  ({facts['threads']} threads, {facts['seconds']} s)\n")
    print(table(figures))
    if options.json is not None:
        write_json(options.json, figures, facts)
    sys.exit(any(figure.is_met is False for figure in figures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare with transformers on the CPU.")
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    add("--checkpoint", type=Path, help="where the random checkpoint is kept; made if missing")
    add("--layers", type=int, default=24, help="fewer for a quick look (default 24: real shape)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="on both sides")
    add("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    add("--new-tokens", type=int, default=64, help="tokens of an answer (default 64)")
    add("--json", type=Path, help="also write the figures here")
    return parser


def _real_shape(options: argparse.Namespace, parts: Collection[str], folder: Path) -> list[Figure]:
    shape = random_checkpoint.Shape(layer_count=options.layers)
    checkpoint = random_checkpoint.ensure(folder, shape)
    figures: list[Figure] = []
    arguments = [f"--model={checkpoint}", f"--threads={options.threads}", "--device=cpu"]
    with Service(arguments) as service, Peer(checkpoint, options.threads) as peer:
        if "decode" in parts:
            figures += decode.measure(service, peer, options.rounds, options.new_tokens)
        if "prefix" in parts:
            figures += prefix.measure(service, peer, options.rounds)
        if "memory" in parts:
            figures += memory.measure(service, "real shape", checkpoint)
    return figures


def _demo(options: argparse.Namespace, parts: Collection[str]) -> list[Figure]:
    figures: list[Figure] = []
    arguments = [f"--model={DEMO_CHECKPOINT}", f"--threads={options.threads}", "--device=cpu"]
    if "start" in parts:
        figures += startup.measure(arguments, options.rounds)
    if {"plans", "memory"} & set(parts):
        with Service(arguments) as service:
            if "plans" in parts:
                figures += plans.measure(service)
            if "memory" in parts:
                figures += memory.measure(service, "demo", DEMO_CHECKPOINT)
    return figures


if __name__ == "__main__":
    main()
