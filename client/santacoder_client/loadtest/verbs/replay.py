"""`santacoder-load replay`: a timed trace, played as it was or at another speed."""

from __future__ import annotations

import argparse

from santacoder_client.loadtest.arguments import add_phase_arguments, phases_of, seed_of
from santacoder_client.loadtest.data.jsonl import JsonlOptions
from santacoder_client.loadtest.data.settings import flag, settings_of
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.single import add_single_arguments, carry_out, plan_of
from santacoder_client.loadtest.values import count, number

LAST_MOMENT_SECONDS = 0.001
"""The end is no part of the steady time, but the last request is."""

_EXAMPLES = """\
examples:
  santacoder-load replay trace.jsonl
  santacoder-load replay trace.jsonl --speed 2 --warm-up 10s --html page.html

A line of a trace is a JSON object with `at`, seconds from the beginning, and a prompt; or one with
`timestamp`, `input_length`, `output_length` and `hash_ids`.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "replay",
        help="play a timed trace and measure",
        usage="%(prog)s TRACE [options]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data_file", metavar="TRACE", help="JSONL file of requests with times")
    group = parser.add_argument_group("trace", "in brackets: when not given")
    group.add_argument(
        "--speed", type=number(0.001, 1000), default=1.0, metavar="X", help="2 is twice as fast (1)"
    )
    group.add_argument(
        "--concurrency", type=count(), metavar="N", help="at most N at once; others are late (none)"
    )
    for name, each in settings_of(JsonlOptions).items():
        if name not in ("data_file", "seed"):
            group.add_argument(
                flag(name), metavar=each.metavar, help=f"{each.help} ({each.default})"
            )
    add_phase_arguments(parser, warm_up="0s", steady=None, cool_down="0s")
    add_single_arguments(parser)
    parser.set_defaults(execute=execute, data="jsonl")


def execute(arguments: argparse.Namespace) -> int:
    """Measures; returns the exit status."""
    plan = plan_of(arguments)
    schedule = plan.data.schedule
    if schedule is None:
        hint = f"santacoder-load run --data jsonl --data-file {arguments.data_file} --rate R"
        raise UsageError("TRACE: has no times; got prompts alone; allowed a timed trace", hint)
    return carry_out(
        "replay", arguments, plan, _load_of(arguments, schedule), arguments.concurrency
    )


def _load_of(arguments: argparse.Namespace, schedule: tuple[float, ...]) -> Load:
    if arguments.duration is None:
        end = schedule[-1] / arguments.speed + LAST_MOMENT_SECONDS
        arguments.duration = end - arguments.warm_up - arguments.cool_down
        if arguments.duration <= 0:
            got = f"{arguments.warm_up + arguments.cool_down:g} s of {end:g} s"
            raise UsageError(f"--warm-up: nothing is left to count; got {got}; allowed less")
    return Load(
        model="trace",
        concurrency=arguments.concurrency,
        trace_seconds=schedule,
        speed=arguments.speed,
        seed=seed_of(arguments),
        phases=phases_of(arguments),
    )
