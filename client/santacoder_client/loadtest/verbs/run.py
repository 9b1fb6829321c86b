"""`santacoder-load run`: one load, one result."""

from __future__ import annotations

import argparse
import asyncio

from santacoder_client.loadtest.arguments import (
    add_phase_arguments,
    add_request_arguments,
    add_target_arguments,
    add_worker_arguments,
    targets_of,
    wishes_of,
    worker_count_of,
)
from santacoder_client.loadtest.data.options import add_data_arguments, prepare_data
from santacoder_client.loadtest.ending import (
    add_judging_arguments,
    finish,
    judging_of,
    result_of,
)
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.load_arguments import add_load_arguments, load_of, most_workers
from santacoder_client.loadtest.measure import Plan, Ready, get_ready, measure
from santacoder_client.loadtest.outputs import add_output_arguments, outputs_of

_EXAMPLES = """\
examples:
  santacoder-load run --rate 20 --duration 1m --html page.html
  santacoder-load run --concurrency 8 --data fim --files src --output result.json
  santacoder-load run --editors 50 --data keystrokes --files src --api session
  santacoder-load run --ramp 1:100 --slo 'ttft<200ms' --fail-on 'ttft.p99<500ms'
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="put a load on a service and measure",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_load_arguments(parser)
    add_phase_arguments(parser)
    add_data_arguments(parser, with_seed=False)
    add_request_arguments(parser)
    add_target_arguments(parser)
    add_worker_arguments(parser)
    add_judging_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, reach the server, send no load"
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Measures; returns the exit status."""
    load = load_of(arguments)
    plan = plan_of(arguments)
    workers = worker_count_of(arguments, most_workers(load))
    outputs = outputs_of(arguments)
    judging = judging_of(arguments)
    ready = asyncio.run(get_ready(plan))
    if arguments.dry_run:
        return _say_ready(ready, load)
    measured = asyncio.run(measure(ready, load, workers))
    result = result_of("run", arguments, ready, measured, judging)
    return finish(result, measured, outputs)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What is asked for, apart from the load. Raises UsageError or DataError."""
    targets, security = targets_of(arguments)
    wishes = wishes_of(arguments, targets)
    return Plan(targets, security, wishes, prepare_data(arguments), arguments.channels)


def _say_ready(ready: Ready, load: Load) -> int:
    for target in ready.targets:
        name = (target.model or {}).get("name", "a model")
        print(f"{target.address} serves {name}")
    print(
        f"{ready.data.name} data {ready.data.sha256[:12]}, {load.model} load: ready, nothing sent"
    )
    return 0
