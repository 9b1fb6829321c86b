"""Groups of options that several verbs share, and what they say. Checks; does nothing."""

from __future__ import annotations

import argparse
import os
from typing import Any

from santacoder_client import _arguments
from santacoder_client._channel import DEFAULT_TARGET
from santacoder_client._options import OPTIONS, check_options
from santacoder_client._security_arguments import (
    TOKEN_VARIABLE,
    add_security_arguments,
    tls_of_arguments,
    token_of_arguments,
)
from santacoder_client.errors import InvalidRequest
from santacoder_client.loadtest.environment import usable_cpu_count
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.load import Phases
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.target import SHARD_PREFIX, Security, Target, parse_targets
from santacoder_client.loadtest.values import (
    count,
    duration,
    positive_duration,
    share,
)

APIS = ("stream", "unary", "session")
MOST_WORKERS = 64
_OPTION_PREFIX = "request_"
_NOT_FLAGS = ("request_id", "timeout", "max_new_tokens")
"""Request options that the run or its data set themselves."""
_OTHER_FLAGS = {"seed": "sampling-seed", "fim_order": "fim-order"}
"""`--seed` is the run's."""


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """What is loaded, and how it is reached."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--target",
        action="append",
        metavar="ADDRESS",
        help="HOST:PORT of a router, or shard:ADDRESS[,ADDRESS...] of a shard group, rank by rank; "
        "several times for several, in turns (default: $SANTACODER_TARGET, else 127.0.0.1:50051)",
    )
    group.add_argument(
        "--allow-remote", action="store_true", help="load other machines than this one"
    )
    add_security_arguments(group)
    group.add_argument(
        "--metrics-target",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where a server tells its own metrics, shown beside; may be given several times",
    )
    group.add_argument(
        "--channels", type=count(1, 256), metavar="N", help="connections a worker and target"
    )


def targets_of(arguments: argparse.Namespace) -> tuple[tuple[Target, ...], Security]:
    """The targets and how they are spoken to. Raises UsageError."""
    security = _security_of(arguments)
    # Here, and for the token, the environment decides.
    texts = arguments.target or [os.environ.get("SANTACODER_TARGET") or DEFAULT_TARGET]
    targets = parse_targets(texts, security, arguments.allow_remote, arguments.allow_plain_token)
    if len({target.address for target in targets}) < len(targets):
        raise UsageError("--target: named twice; got one address again; allowed each once")
    return targets, security


def _security_of(arguments: argparse.Namespace) -> Security:
    try:
        tls = tls_of_arguments(arguments)
        token = token_of_arguments(arguments, os.environ.get(TOKEN_VARIABLE))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if tls is None:
        return Security(token=token)
    ca_file, certificate_file, key_file = (
        None if path is None else os.fspath(path) for path in (tls.ca, tls.cert, tls.key)
    )
    return Security(True, ca_file, certificate_file, key_file, tls.server_name, token)


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """How every request is made."""
    group = parser.add_argument_group("requests", "in brackets: when not given")
    group.add_argument(
        "--api", choices=APIS, help="which call of the service (stream; of editors: session)"
    )
    group.add_argument(
        "--timeout", type=positive_duration, metavar="TIME", help="deadline of each (none)"
    )
    group.add_argument(
        "--cancel-share",
        type=share,
        default=0.0,
        metavar="X",
        help="part of the requests to cancel (0); only --api session tells when that was confirmed",
    )
    group.add_argument(
        "--cancel-after", type=duration, default=0.05, metavar="TIME", help="when (50ms)"
    )
    group.add_argument("--max-new-tokens", metavar="TOKENS", help="the same as --new-tokens")
    for option in OPTIONS:
        if option.name not in _NOT_FLAGS:
            flag = "--" + _OTHER_FLAGS.get(option.name, option.name.replace("_", "-"))
            form = _arguments._form(option)
            group.add_argument(
                flag, dest=_OPTION_PREFIX + option.name, default=None, help=option.help, **form
            )


def take_max_new_tokens(arguments: argparse.Namespace) -> None:
    """`--max-new-tokens`, as the SDK has it, is the data's `--new-tokens`. Raises UsageError."""
    if arguments.max_new_tokens is None:
        return
    if arguments.new_tokens is not None:
        raise UsageError("--max-new-tokens: said twice; got --new-tokens too; allowed one of them")
    arguments.new_tokens = arguments.max_new_tokens


def wishes_of(arguments: argparse.Namespace, targets: tuple[Target, ...]) -> Wishes:
    """What is asked of every request. Raises UsageError."""
    given = {
        option.name: getattr(arguments, _OPTION_PREFIX + option.name)
        for option in OPTIONS
        if option.name not in _NOT_FLAGS
    }
    options = {name: value for name, value in given.items() if value is not None}
    try:
        check_options(options)
    except InvalidRequest as error:
        raise UsageError(str(error)) from error
    return Wishes(
        api=_api_of(arguments, targets),
        options=options,
        timeout_seconds=arguments.timeout,
        cancel_share=arguments.cancel_share,
        cancel_after_seconds=arguments.cancel_after,
        seed=seed_of(arguments),
        run_id=f"load-{os.urandom(4).hex()}",
    )


def _api_of(arguments: argparse.Namespace, targets: tuple[Target, ...]) -> str:
    of_editors = getattr(arguments, "editors", None) is not None
    api: str = arguments.api or ("session" if of_editors else "stream")
    if of_editors and api != "session":
        raise UsageError(f"--api: editors supersede by turns; got {api}; allowed session")
    if api != "stream" and any(target.mode == "shard" for target in targets):
        raise UsageError(f"--api: not with {SHARD_PREFIX} targets; got {api}; allowed stream")
    return api


def add_phase_arguments(
    parser: argparse.ArgumentParser,
    warm_up: str = "5s",
    steady: str | None = "30s",
    cool_down: str = "2s",
) -> None:
    """How long the parts of a run are; without `steady`, as long as the data is."""
    group = parser.add_argument_group("time", "such as 500ms, 30s, 2m; in brackets: when not given")
    kinds = {
        "--warm-up": (duration, warm_up, f"load that is not counted ({warm_up})"),
        "--duration": (positive_duration, steady, f"load that is counted ({steady or 'all'})"),
        "--cool-down": (duration, cool_down, f"load after that, not counted ({cool_down})"),
        "--grace": (duration, "30s", "wait for the last answers, then cancel them (30s)"),
    }
    for flag, (kind, default, text) in kinds.items():
        group.add_argument(flag, type=kind, default=default, metavar="TIME", help=text)


def phases_of(arguments: argparse.Namespace) -> Phases:
    """The parts of a run."""
    return Phases(arguments.warm_up, arguments.duration, arguments.cool_down, arguments.grace)


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Who sends."""
    group = parser.add_argument_group("client")
    group.add_argument(
        "--workers",
        type=_workers,
        default="auto",
        metavar="N",
        help="processes that send, or auto: one for two cores (auto)",
    )
    group.add_argument(
        "--seed", default="0", metavar="N", help="of arrivals, data and cancels (0)", type=_seed
    )


def worker_count_of(arguments: argparse.Namespace, most: int | None) -> int:
    """How many processes send; never more than there are users or requests at once."""
    if any(text.startswith(SHARD_PREFIX) for text in arguments.target or ()):
        most = 1  # a group takes one driver
    if arguments.workers != "auto":
        if most is not None and arguments.workers > most:
            raise UsageError(
                f"--workers: more than can send at once; got {arguments.workers}; "
                f"allowed 1 to {most}"
            )
        return int(arguments.workers)
    # The other half is for gRPC's own threads, and for whoever else runs here.
    wanted = max(1, (usable_cpu_count() or 1) // 2)
    return min(wanted, most or wanted, MOST_WORKERS)


def seed_of(arguments: argparse.Namespace) -> int:
    """The run's seed; the data reads it as text."""
    return int(arguments.seed)


def _seed(text: str) -> str:
    return str(count(0, 2**63 - 1)(text))


def _workers(text: str) -> Any:
    return text if text == "auto" else count(1, MOST_WORKERS)(text)
