"""`santacoder-load run`: one load, one result."""

from __future__ import annotations

import argparse

from santacoder_client.loadtest.arguments import add_phase_arguments
from santacoder_client.loadtest.data.options import add_data_arguments
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.load_arguments import add_load_arguments, load_of, most_workers
from santacoder_client.loadtest.single import add_single_arguments, carry_out, plan_of

_EXAMPLES = """\
examples:
  santacoder-load run --rate 20 --duration 1m --html page.html
  santacoder-load run --concurrency 8 --data fim --files src --output result.json
  santacoder-load run --editors 50 --data keystrokes --files src
  santacoder-load run --ramp 1:100 --slo 'ttft<200ms' --fail-on 'ttft.p99<500ms'
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="put a load on a service and measure",
        usage="%(prog)s (--rate R | --ramp FROM:TO | --steps R@TIME,... | --concurrency N | "
        "--editors N) [options]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_load_arguments(parser)
    add_phase_arguments(parser)
    add_data_arguments(parser, with_seed=False)
    add_single_arguments(parser)
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Measures; returns the exit status."""
    load = load_of(arguments)
    plan = plan_of(arguments)
    if plan.data.schedule is not None:
        hint = f"santacoder-load replay {arguments.data_file}"
        raise UsageError("--data-file: has times; got a timed trace; allowed prompts alone", hint)
    return carry_out("run", arguments, plan, load, most_workers(load))
