"""santacoder-serve: a whole service on this machine, ranks and router. Never imports torch.

Resolves the model once, refuses what cannot work before anything starts, then hands over to
`supervise.py`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from santacoder_shard import manifest
from santacoder_shard.arguments import EXIT_USAGE, OneLineParser, absolute_path
from santacoder_shard.config import (
    MAX_PARALLEL_SIZE,
    EngineOptions,
    add_engine_arguments,
    add_model_arguments,
    check_environment,
    engine_arguments,
    engine_options,
)
from santacoder_shard.crash_reports import CrashReports, default_folder, stacks_path
from santacoder_shard.errors import CheckpointError
from santacoder_shard.fault_points import FaultsRefused, read_faults
from santacoder_shard.hub import ResolvedModel, resolve
from santacoder_shard.log import Logger, make_logger
from santacoder_shard.log_sink import LogSink
from santacoder_shard.model_config import read_model_config
from santacoder_shard.router_options import add_router_arguments, refusal_of, router_arguments
from santacoder_shard.supervise import Supervisor

EXIT_MODEL = 3
DEMO_NAME = "santacoder-demo"
SIGNALS = (
    "Signals: TERM and INT let running requests end and exit, at the second time at once; USR2"
    " replaces the ranks, and running requests go on with the new ones."
)
# In an installed wheel, and in a checkout.
DEMO_FOLDERS = (
    Path(__file__).parent / "demo_checkpoint",
    Path(__file__).parents[2] / "models" / "demo" / "checkpoint",
)


class ParallelSizeRefused(Exception):
    """The model cannot be cut into so many ranks; the message is one line."""


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """What santacoder-serve was told."""

    model: str | None
    revision: str | None
    tensor_parallel_size: int
    engine: EngineOptions
    router_arguments: tuple[str, ...]
    crash_folder: Path
    """Where reports of the group's deaths go."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit code."""
    config = parse_config(sys.argv[1:] if arguments is None else arguments)
    started_at = time.monotonic()
    try:
        read_faults(os.environ)
        model = find_model(config)
        check_parallel_size(model.path, config.tensor_parallel_size)
        # Once for all ranks and all their lives, as long as the files stay what they are.
        model = replace(model, verified_as=manifest.verify(model.path))
    except CheckpointError as error:
        _say(f"error: {error}")
        return EXIT_MODEL
    except (ParallelSizeRefused, FaultsRefused) as error:
        _say(f"error: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        # Fetching a model takes minutes; nothing else has been started yet.
        return 128 + signal.SIGINT
    # Until the supervisor listens to it: what is made here is cleared away all the same.
    signal.signal(signal.SIGTERM, _leave)
    errors = LogSink(sys.stderr.fileno())
    log = make_logger(config.engine.log_level, errors)
    log.info("model found", path=str(model.path), seconds=round(time.monotonic() - started_at, 2))
    # Its mode is 0700, and its path is short enough for a Unix socket.
    run_folder = Path(tempfile.mkdtemp(prefix="santacoder-"))
    try:
        return asyncio.run(_supervise(config, model, run_folder, errors, log))
    finally:
        shutil.rmtree(run_folder, ignore_errors=True)
        errors.close()


def parse_config(arguments: Sequence[str]) -> LaunchConfig:
    """Read the arguments; a wrong one ends the process with one line and exit code 2."""
    parser = OneLineParser("santacoder-serve", "Serve a SantaCoder model on this machine.", SIGNALS)
    add_model_arguments(parser, model_required=False)
    add_engine_arguments(parser)
    add_router_arguments(parser)
    parser.add_argument(
        "--crash-folder",
        type=absolute_path,
        default=default_folder(),
        metavar="DIR",
        help="where a report of each death of the ranks goes, the last 20 (%(default)s)",
    )
    options = parser.parse_args(arguments)
    check_environment(parser, options)
    if refusal := refusal_of(options):
        parser.error(refusal)
    return LaunchConfig(
        model=options.model,
        revision=options.revision,
        tensor_parallel_size=options.tp,
        engine=engine_options(options),
        router_arguments=router_arguments(options),
        crash_folder=options.crash_folder,
    )


def find_model(config: LaunchConfig) -> ResolvedModel:
    """The model's folder: fetched if it is a hub id, the demo's if none was named."""
    if config.model is not None:
        return resolve(config.model, config.revision)
    for folder in DEMO_FOLDERS:
        if (folder / "config.json").is_file():
            return ResolvedModel(path=folder, name=DEMO_NAME, revision="", commit="")
    looked_in = " and ".join(str(folder) for folder in DEMO_FOLDERS)
    raise CheckpointError(
        f"--model: missing, and there is no demo checkpoint in {looked_in}; give a folder or hub id"
    )


def check_parallel_size(folder: Path, size: int) -> None:
    """Raise ParallelSizeRefused unless the model can be cut into `size` ranks."""
    shape = read_model_config(folder / "config.json")
    counts = (shape.head_count, shape.inner_size, shape.vocabulary_size)
    allowed = [
        candidate
        for candidate in range(1, MAX_PARALLEL_SIZE + 1)
        if not any(count % candidate for count in counts)
    ]
    if size not in allowed:
        raise ParallelSizeRefused(
            f"--tp: does not divide the model's heads ({shape.head_count}), inner size"
            f" ({shape.inner_size}) and vocabulary ({shape.vocabulary_size}); got {size};"
            f" allowed {', '.join(map(str, allowed))}"
        )


async def _supervise(
    config: LaunchConfig, model: ResolvedModel, run_folder: Path, errors: LogSink, log: Logger
) -> int:
    size = config.tensor_parallel_size
    addresses = [f"unix:{run_folder}/rank-{rank}.sock" for rank in range(size)]
    router_command = [
        *_python_module("santacoder_shard.leash"),
        "santacoder_router",
        f"--shards={','.join(addresses)}",
        "--notes",
        *config.router_arguments,
    ]
    supervisor = Supervisor(
        router_command,
        _rank_command(config, model, addresses, run_folder),
        size,
        # Whoever does not read what is said here is served all the same.
        announce=LogSink(sys.stdout.fileno()).info,
        say=errors.info,
        log=log,
        undertaker=CrashReports(config.crash_folder, run_folder, log),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.signalled, number)
    loop.add_signal_handler(signal.SIGUSR2, supervisor.renew_group)
    return await supervisor.run()


def _rank_command(
    config: LaunchConfig, model: ResolvedModel, addresses: Sequence[str], run_folder: Path
) -> Callable[[int, int], list[str]]:
    same_for_all = [
        f"--tp={config.tensor_parallel_size}",
        f"--model={model.path}",
        f"--model-name={model.name}",
        f"--model-commit={model.commit}",
        f"--revision={model.revision}",
        f"--verified-as={model.verified_as}",
        "--exit-with-stdin",
        *engine_arguments(config.engine),
    ]

    def command(rank: int, epoch: int) -> list[str]:
        return [
            *_python_module("santacoder_shard"),
            f"--rank={rank}",
            f"--epoch={epoch}",
            f"--listen={addresses[rank]}",
            # Each life meets at a file of its own: the last one's still names its dead.
            f"--rendezvous={run_folder}/rendezvous-{epoch}",
            f"--stacks={stacks_path(run_folder, rank, epoch)}",
            *same_for_all,
        ]

    return command


def _python_module(name: str) -> list[str]:
    # -P: a folder of that name in the user's working directory is not what is meant.
    return [sys.executable, "-P", "-m", name]


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
