"""The options that say what load to put on. Checks which go together."""

from __future__ import annotations

import argparse
from dataclasses import replace

from santacoder_client.loadtest.arguments import phases_of, seed_of
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.load import Habits, Load, Model, Spacing
from santacoder_client.loadtest.values import (
    count,
    duration,
    number,
    positive_duration,
    ramp,
    rate,
    steps,
)

MODELS = ("--rate", "--ramp", "--steps", "--editors")
TYPED_DATA = "keystrokes"
"""Data that knows when people hit keys; there, no option says it."""
MOST_REQUESTS = 5_000_000
"""Their records fill the memory of a machine, whether they are sent or not."""
DEBOUNCE_SECONDS = Load().debounce_seconds


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """Which load: exactly one of the models, or --concurrency alone for a closed loop."""
    group = parser.add_argument_group(
        "load", "one of --rate, --ramp, --steps, --concurrency, --editors; in brackets: defaults"
    )
    group.add_argument("--rate", type=rate, metavar="R", help="requests/s, whatever comes back")
    group.add_argument("--ramp", type=ramp, metavar="FROM:TO", help="a rate that grows or falls")
    group.add_argument("--steps", type=steps, metavar="R@TIME,...", help="rates one after another")
    group.add_argument(
        "--concurrency",
        type=count(),
        metavar="N",
        help="alone: N users, each asks again when answered; beside a rate: at most N at once, "
        "what is due above that is late, or unsent",
    )
    group.add_argument(
        "--editors", type=count(), metavar="N", help="N people who type, pause, and supersede"
    )
    group.add_argument(
        "--arrival",
        choices=("poisson", "constant", "gamma"),
        help="how requests of a rate are strewn (poisson)",
    )
    group.add_argument(
        "--burstiness",
        type=number(0.01, 100),
        metavar="X",
        help="of gamma: squared variation of the gaps; 1 is poisson, above it come bunches (4)",
    )
    habits = Habits()
    group.add_argument(
        "--typing-pause",
        type=positive_duration,
        metavar="TIME",
        help=f"of editors: median between keystrokes ({habits.keystroke_seconds * 1000:g}ms)",
    )
    group.add_argument(
        "--burst-keys",
        type=number(1, 1000),
        metavar="X",
        help=f"of editors: mean keystrokes in a row ({habits.keystrokes_per_burst:g})",
    )
    group.add_argument(
        "--think-time",
        type=positive_duration,
        metavar="TIME",
        help=f"of editors: median pause between bursts ({habits.think_seconds:g}s)",
    )
    group.add_argument(
        "--debounce",
        type=duration,
        metavar="TIME",
        help=f"of editors with --data {TYPED_DATA}, which has the pauses: how long no key is hit "
        f"before they ask ({DEBOUNCE_SECONDS * 1000:g}ms)",
    )


def load_of(arguments: argparse.Namespace) -> Load:
    """The load, with its phases. Raises UsageError where options do not go together."""
    chosen = [flag for flag in MODELS if _given(arguments, flag) is not None]
    if len(chosen) > 1:
        got = " and ".join(chosen)
        raise UsageError(f"{chosen[1]}: another load was chosen; got {got}; allowed one of them")
    if not chosen and arguments.concurrency is None:
        allowed = f"one of {', '.join(MODELS)} or --concurrency"
        raise UsageError(f"--rate: no load; got nothing; allowed {allowed}")
    _check_companions(arguments, chosen[0] if chosen else "--concurrency")
    seed, phases = seed_of(arguments), phases_of(arguments)
    if arguments.editors is not None:
        return replace(_editors(arguments), seed=seed, phases=phases)
    if not chosen:
        return Load("closed", concurrency=arguments.concurrency, seed=seed, phases=phases)
    spacing: Spacing = arguments.arrival or "poisson"
    model: Model = "ramp" if arguments.ramp else "steps" if arguments.steps else spacing
    begin, end = arguments.ramp or (arguments.rate, None)
    return _check_size(
        Load(
            model=model,
            per_second=begin,
            end_per_second=end,
            steps=arguments.steps or (),
            spacing=spacing,
            burstiness=arguments.burstiness or 4.0,
            concurrency=arguments.concurrency,
            seed=seed,
            phases=phases,
        )
    )


def _check_size(load: Load) -> Load:
    """The same, if a machine can keep a record of every request. Raises UsageError."""
    steps = (step.per_second for step in load.steps)
    rates = (load.per_second or 0.0, load.end_per_second or 0.0, *steps)
    most = max(rates) * load.phases.sending_seconds
    if most > MOST_REQUESTS:
        raise UsageError(
            f"--duration: too many requests at this rate; got {most:,.0f}; "
            f"allowed up to {MOST_REQUESTS:,} in a run"
        )
    return load


def most_workers(load: Load) -> int | None:
    """More would have nothing to do; None if there is no such bound."""
    return load.editor_count if load.model == "editor" else load.concurrency


def _check_companions(arguments: argparse.Namespace, model: str) -> None:
    """Options that say nothing in this load are a mistake, and are not passed over."""
    rates = ("--rate", "--ramp", "--steps")
    companions = {
        "--arrival": rates,
        "--burstiness": rates,
        "--concurrency": (*rates, "--concurrency"),
        "--typing-pause": ("--editors",),
        "--burst-keys": ("--editors",),
        "--think-time": ("--editors",),
        "--debounce": ("--editors",),
    }
    for flag, models in companions.items():
        if _given(arguments, flag) is not None and model not in models:
            allowed = " or ".join(models)
            raise UsageError(f"{flag}: not for this load; got {model}; allowed with {allowed}")
    typed = arguments.data == TYPED_DATA
    for flag in ("--typing-pause", "--burst-keys", "--think-time", "--debounce"):
        if _given(arguments, flag) is not None and typed != (flag == "--debounce"):
            allowed = f"--data {TYPED_DATA}" if flag == "--debounce" else "other data"
            raise UsageError(
                f"{flag}: not for this data; got --data {arguments.data}; allowed with {allowed}"
            )
    if arguments.burstiness is not None and arguments.arrival != "gamma":
        got = arguments.arrival or "poisson"
        raise UsageError(f"--burstiness: not for this arrival; got {got}; allowed gamma")


def _editors(arguments: argparse.Namespace) -> Load:
    debounce = arguments.debounce
    return Load(
        "editor",
        editor_count=arguments.editors,
        typing="data" if arguments.data == TYPED_DATA else "habits",
        habits=_habits(arguments),
        debounce_seconds=DEBOUNCE_SECONDS if debounce is None else debounce,
    )


def _habits(arguments: argparse.Namespace) -> Habits:
    usual = Habits()
    return Habits(
        keystroke_seconds=arguments.typing_pause or usual.keystroke_seconds,
        keystrokes_per_burst=arguments.burst_keys or usual.keystrokes_per_burst,
        think_seconds=arguments.think_time or usual.think_seconds,
    )


def _given(arguments: argparse.Namespace, flag: str) -> object:
    return getattr(arguments, flag.removeprefix("--").replace("-", "_"))
