"""What `run` and `replay` share: one plan, one measurement, one result."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Literal

from santacoder_client.loadtest.arguments import (
    add_request_arguments,
    add_target_arguments,
    add_worker_arguments,
    take_max_new_tokens,
    targets_of,
    wishes_of,
    worker_count_of,
)
from santacoder_client.loadtest.data.options import prepare_data
from santacoder_client.loadtest.ending import (
    add_judging_arguments,
    finish,
    judging_of,
    result_of,
)
from santacoder_client.loadtest.live import LiveView
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.measure import Plan, Ready, get_ready, measure
from santacoder_client.loadtest.outputs import add_output_arguments, outputs_of
from santacoder_client.loadtest.scrape import check_metrics_targets


def add_single_arguments(parser: argparse.ArgumentParser) -> None:
    """All options that say neither which load nor which data."""
    add_request_arguments(parser)
    add_target_arguments(parser)
    add_worker_arguments(parser)
    add_judging_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, reach the server, send no load"
    )


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What is asked for, apart from the load. Raises UsageError or DataError."""
    targets, security = targets_of(arguments)
    wishes = wishes_of(arguments, targets)
    take_max_new_tokens(arguments)
    metrics = check_metrics_targets(arguments.metrics_target, arguments.allow_remote)
    return Plan(targets, security, wishes, prepare_data(arguments), arguments.channels, metrics)


def carry_out(
    verb: Literal["run", "replay"],
    arguments: argparse.Namespace,
    plan: Plan,
    load: Load,
    most_workers: int | None,
) -> int:
    """Measures, saves, shows; returns the exit status."""
    worker_count = worker_count_of(arguments, most_workers)
    outputs = outputs_of(arguments)
    judging = judging_of(arguments)
    ready = asyncio.run(get_ready(plan))
    if arguments.dry_run:
        sys.stdout.write(told(ready, load))
        return 0
    watcher = LiveView(sys.stderr, arguments.quiet)
    measured = asyncio.run(measure(ready, load, worker_count, watcher))
    result = result_of(verb, arguments, ready, measured, judging)
    return finish(result, measured, outputs)


def told(ready: Ready, load: Load) -> str:
    """What `--dry-run` says."""
    lines = [
        f"{target.address} serves {(target.model or {}).get('name') or 'a model'}"
        for target in ready.targets
    ]
    lines.append(f"{ready.data.name} data {ready.data.sha256[:12]}, {load.model} load")
    return "\n".join([*lines, "ready; nothing was sent"]) + "\n"
