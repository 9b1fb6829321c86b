"""`santacoder-load sweep`: load after load, to find the knee and the most that meets an SLO."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from santacoder_client.loadtest.arguments import (
    add_phase_arguments,
    phases_of,
    seed_of,
    worker_count_of,
)
from santacoder_client.loadtest.data.options import add_data_arguments
from santacoder_client.loadtest.ending import (
    Judging,
    close,
    judging_of,
    nothing_answered,
    result_of,
    show,
)
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.knee import Search, Variable, geometric
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.measure import Ready, get_ready
from santacoder_client.loadtest.outputs import Outputs, outputs_of
from santacoder_client.loadtest.result import Result
from santacoder_client.loadtest.single import add_single_arguments, plan_of, told
from santacoder_client.loadtest.sweeping import Sweep, Swept, carry_out_sweep, sweep_result
from santacoder_client.loadtest.values import count, percentage, rate, refused

LOADS_MAX = 64

_EXAMPLES = """\
Without an SLO the knee is looked for: the load past which more load brings waiting instead of
answers. With one, also the highest load at which enough requests meet it. A sweep ends its climb
when the server no longer keeps up, and then halves the gap between the last good load and the next.

examples:
  santacoder-load sweep --rates 1,2,4,8,16
  santacoder-load sweep --rate-range 1:64:8 --slo 'ttft<100ms,e2e<2s' --html page.html
  santacoder-load sweep --concurrencies 1,2,4,8,16 --duration 10s
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "sweep",
        help="load after load: the knee, and the most that meets an SLO",
        usage="%(prog)s (--rates R,R | --rate-range LOW:HIGH:COUNT | --concurrencies N,N) "
        "[options]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_loads(parser.add_argument_group("loads", "one of these, and how to look closer"))
    add_phase_arguments(parser, steady="20s")
    add_data_arguments(parser, with_seed=False)
    add_single_arguments(parser)
    parser.set_defaults(execute=execute)


def _add_loads(group: argparse._ArgumentGroup) -> None:
    loads = group.add_mutually_exclusive_group(required=True)
    loads.add_argument("--rates", type=_list_of(rate), metavar="R,R", help="requests/s to try")
    loads.add_argument(
        "--rate-range",
        type=_range,
        metavar="LOW:HIGH:COUNT",
        help="so many rates, each the same factor above the last",
    )
    loads.add_argument(
        "--concurrencies", type=_list_of(count()), metavar="N,N", help="requests at once to try"
    )
    group.add_argument(
        "--arrival",
        choices=("poisson", "constant"),
        help="how requests of a rate are strewn (poisson)",
    )
    group.add_argument(
        "--halvings",
        type=count(0, LOADS_MAX),
        default=5,
        metavar="N",
        help="loads to try between the last good one and the first bad one, at most (5)",
    )
    group.add_argument(
        "--slo-share",
        type=percentage(),
        default=0.99,
        metavar="PERCENT",
        help="requests of a load that must meet the SLO (99%%)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Measures; returns the exit status."""
    search = _search_of(arguments)
    plan = plan_of(arguments)
    if plan.data.schedule is not None:
        raise UsageError("--data-file: has times; got a timed trace; allowed prompts alone")
    if arguments.requests_output is not None:
        raise UsageError("--requests-output: not of a sweep; got one; allowed for run and replay")
    judging = judging_of(arguments)
    most = int(search.ladder[-1]) if search.variable == "concurrency" else None
    sweep = Sweep(
        search=search,
        load_at=_loads(arguments, search.variable),
        slos=judging.slos,
        share=arguments.slo_share,
        worker_count=worker_count_of(arguments, most),
        quiet=arguments.quiet,
    )
    outputs = outputs_of(arguments)
    ready = asyncio.run(get_ready(plan))
    if arguments.dry_run:
        sys.stdout.write(told(ready, sweep.load_at(search.ladder[0])))
        return 0
    swept = carry_out_sweep(ready, sweep)
    return _finish(_result(arguments, ready, swept, sweep, judging), swept, outputs)


def _result(
    arguments: argparse.Namespace, ready: Ready, swept: Swept, sweep: Sweep, judging: Judging
) -> Result:
    chosen = swept.recommended()
    result = result_of("sweep", arguments, ready, chosen.measured, judging, chosen.summary)
    return replace(
        result,
        started_at=swept.tried[0].measured.started_at,
        interrupted=swept.interrupted,
        sweep=sweep_result(swept, sweep),
    )


def _finish(result: Result, swept: Swept, outputs: Outputs) -> int:
    failures = [*outputs.save(result, ()), *swept.failures, *show(result)]
    for line in swept.warnings:
        sys.stderr.write(f"warning: {line}\n")
    if not any(each.summary.outcomes.ok for each in swept.tried):
        failures.append(nothing_answered(result))
    return close(failures, result)


def _search_of(arguments: argparse.Namespace) -> Search:
    if arguments.concurrencies is not None:
        if arguments.arrival is not None:
            got = arguments.arrival
            raise UsageError(f"--arrival: not for this load; got {got}; allowed with rates")
        return Search("concurrency", arguments.concurrencies, arguments.halvings)
    return Search("rate", arguments.rates or arguments.rate_range, arguments.halvings)


def _loads(arguments: argparse.Namespace, variable: Variable) -> Callable[[float], Load]:
    """What load a value of the variable means."""
    seed, phases = seed_of(arguments), phases_of(arguments)
    if variable == "concurrency":
        return lambda value: Load("closed", concurrency=int(value), seed=seed, phases=phases)
    spacing: Literal["poisson", "constant"] = arguments.arrival or "poisson"
    return lambda value: Load(spacing, value, spacing=spacing, seed=seed, phases=phases)


def _list_of(kind: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    """Loads, each above the last."""

    def parse(text: str) -> tuple[float, ...]:
        parts = text.split(",")
        loads = tuple(float(kind(part)) for part in parts[: LOADS_MAX + 1])
        if len(parts) > LOADS_MAX or list(loads) != sorted(set(loads)):
            raise refused("not a rising list", text, f"up to {LOADS_MAX} loads, such as 1,2,4,8")
        return loads

    return parse


def _range(text: str) -> tuple[float, ...]:
    parts = text.split(":")
    if len(parts) != 3:
        raise refused("not a range", text, "LOW:HIGH:COUNT, such as 1:64:8")
    low, high, number = rate(parts[0]), rate(parts[1]), count(2, LOADS_MAX)(parts[2])
    if low >= high:
        raise refused("not a rising range", text, "LOW:HIGH:COUNT, such as 1:64:8")
    return geometric(low, high, number)
