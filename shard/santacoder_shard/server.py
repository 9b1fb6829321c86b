"""One rank's process: load, listen, be ready, serve one stream, leave with the right exit code.

Decides when the process ends; knows neither tensors nor plans.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop

from santacoder_shard.certificates import server_credentials
from santacoder_shard.config import ShardConfig
from santacoder_shard.environment import strange_variables
from santacoder_shard.errors import CheckpointError, ParallelSizeError, UnusableOption
from santacoder_shard.fault_points import FaultsRefused, arm, read_faults
from santacoder_shard.loading import load_rank
from santacoder_shard.log import Logger, make_logger
from santacoder_shard.log_sink import LogSink
from santacoder_shard.router_identity import admit_router
from santacoder_shard.servicer import ShardServicer, StreamEnd
from santacoder_shard.socket_file import AddressTaken, SocketFile, UnsafeFolder
from santacoder_shard.stacks import Stacks

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERNAL = 70
EXIT_CODES: dict[type[Exception], int] = {
    UnusableOption: 2,
    ParallelSizeError: 2,
    UnsafeFolder: 2,
    FaultsRefused: 2,
    CheckpointError: 3,
    AddressTaken: 4,
}
MESSAGE_LIMIT_BYTES = 64 << 20
# Allocations between two looks for cycles.
COLLECT_EVERY = 50_000
SWITCH_SECONDS = 100e-6
# How long the last frames have to reach the router once the rank is leaving.
STOP_SECONDS = 1.0
SERVER_OPTIONS = (
    # Without this a second process could listen on the same port and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    # The router pings every few seconds; the default takes that for an attack.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A router lost behind a dead link must not keep the rank for ever.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class StarterGone(Exception):
    """The process that started this rank has ended."""


def serve(config: ShardConfig) -> int:
    """Run the rank to its end; the exit code. Errors are one `error:` line on standard error."""
    # What is made from here on, the socket above all, belongs to this user alone.
    os.umask(0o077)
    # Prompts and keys are in memory: no core dump takes them to a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sink = LogSink(sys.stderr.fileno())
    log = make_logger(config.engine.log_level, sink)
    if not config.exit_with_stdin:  # or the router says it, once for all
        for line in strange_variables(os.environ):
            log.warning("a variable that nobody reads", problem=line)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, sink, log))
    except tuple(EXIT_CODES) as error:
        sink.error(f"error: {error}")
        return EXIT_CODES[type(error)]
    except Exception as error:
        log.error("internal error", exc_info=error)
        first_line = str(error).partition("\n")[0]
        sink.error(f"error: internal error: {type(error).__name__}: {first_line}")
        return EXIT_INTERNAL
    finally:
        sink.close()


async def _serve(config: ShardConfig, sink: LogSink, log: Logger) -> int:
    stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _watch_signals(stopped)
    if config.exit_with_stdin:
        _watch_stdin(stopped)
    stacks = Stacks(config.stacks)
    credentials = server_credentials(config.tls, log) if config.tls else None
    with _claimed(config) as socket_file:
        end = await _load_and_serve(config, log, socket_file, stopped, credentials, stacks)
        if end is None or end.clean or (config.exit_with_stdin and _is_orphan()):
            stacks.discard()
    if end is None:
        log.info("leaving", reason=stopped.result())
        return EXIT_OK
    log.info("leaving", reason=end.reason)
    if end.clean:
        return EXIT_OK
    sink.error(f"error: {end.reason}")
    return EXIT_FAILED


async def _load_and_serve(
    config: ShardConfig,
    log: Logger,
    socket_file: SocketFile | None,
    stopped: asyncio.Future[str],
    credentials: grpc.ServerCredentials | None,
    stacks: Stacks,
) -> StreamEnd | None:
    """Until the one stream has ended, and how; None if told to stop before."""
    loop = asyncio.get_running_loop()
    model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    points = arm(read_faults(os.environ), config.rank, config.epoch, loop.call_soon_threadsafe)
    loading = loop.run_in_executor(model_thread, load_rank, config, log, points)
    await _first(loading, stopped)
    if stopped.done():
        return None
    rank = await loading
    ended: asyncio.Future[StreamEnd] = loop.create_future()
    admit = admit_router if credentials else None
    servicer = ShardServicer(rank.description, rank.engine, model_thread, ended, log, admit=admit)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((servicer.handler(),))
    address = _bind(server, config.listen, credentials)
    if socket_file is not None:
        socket_file.restrict()
    await server.start()
    settle_memory()
    share_interpreter()
    log.info("ready", listen=address)
    sys.stdout.write(f"ready listen={address}\n")
    sys.stdout.flush()
    await _first(ended, stopped)
    end = ended.result() if ended.done() else None
    if end is not None and not end.clean:
        # Before anything is torn down: a thread that hangs is still where it hangs.
        stacks.write(end.cause)
    await server.stop(STOP_SECONDS)
    return end


def settle_memory() -> None:
    """What start-up made will stay: look for cycles seldom, and not there.

    A step of 256 rows makes thousands of objects and no cycles. At Python's own threshold the
    looking took three quarters of the host's time of such a step.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def share_interpreter() -> None:
    """Let the event loop have the interpreter soon, while the model's thread makes the next step.

    At Python's own 5 ms a step's ids could wait for as long as several steps take.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError:
        raise AddressTaken(f"--listen: cannot be bound, it may be taken; got {listen}") from None
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


@contextmanager
def _claimed(config: ShardConfig) -> Iterator[SocketFile | None]:
    """The socket's path for as long as the process serves; nothing to claim for HOST:PORT."""
    if not config.listen.startswith("unix:"):
        yield None
        return
    socket_file = SocketFile(Path(config.listen.removeprefix("unix:")))
    try:
        yield socket_file
    finally:
        # A starter that was killed cannot clear its run folder, so the last rank to leave does.
        has_starter = config.exit_with_stdin
        if has_starter and config.rendezvous is not None:
            config.rendezvous.unlink(missing_ok=True)
        socket_file.release(with_folder=has_starter)


def _watch_signals(stopped: asyncio.Future[str]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stopped, signal.Signals(number).name)


def _watch_stdin(stopped: asyncio.Future[str]) -> None:
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            _stop(stopped, "the process that started this rank has ended")

    loop.add_reader(descriptor, read)


def _is_orphan() -> bool:
    """Whether whoever held the other end of standard input has gone: nobody ever writes there."""
    return bool(select.select([sys.stdin.fileno()], [], [], 0)[0])


def _stop(stopped: asyncio.Future[str], reason: str) -> None:
    if not stopped.done():
        stopped.set_result(reason)
