"""`santacoder-router`: arguments and signals in, one ready line and an exit code out."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from typing import NoReturn

import structlog
import uvloop

from santacoder_router.config import RouterConfig, parse_arguments
from santacoder_router.environment import strange_variables
from santacoder_router.faults import Log
from santacoder_router.group_lives import GroupUnreachable
from santacoder_router.handshake import GroupRefused
from santacoder_router.log_sink import LogSink
from santacoder_router.loop_watch import LoopWatch
from santacoder_router.reloading import UnusableFile
from santacoder_router.router import Ending, Router
from santacoder_router.server import PortTaken
from santacoder_router.tracing import TracingAbsent

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_PORT = 4
EXIT_INTERNAL = 70
EXIT_SIGNAL = 128

# Allocations between two looks for cycles. Requests leave few behind, and at Python's own 700 the
# looking took 6 to 15 percent of a request's time.
COLLECT_EVERY = 50_000


def main() -> None:
    """The command."""
    config = parse_arguments(sys.argv[1:], os.environ)
    harden()
    sink = LogSink(sys.stderr.fileno())
    try:
        # asyncio's own loop is a tenth slower over a whole request.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(run(config, sink)))
    finally:
        sink.close()


async def run(config: RouterConfig, sink: LogSink) -> int:
    """Runs a router to its end; gives the exit code."""

    def fail(exit_code: int, message: str) -> int:
        sink.error(f"error: {message}")
        return exit_code

    log = make_log(config.log_level, sink)
    log.info("starting", **{name: getattr(config, name) for name in config.__slots__})
    for line in strange_variables(os.environ):
        log.warning("a variable that nobody reads", problem=line)
    try:
        router = Router(config, announce, log)
    except (UnusableFile, TracingAbsent) as error:
        return fail(EXIT_CONFIG, str(error))
    sink.tell_drops(router.metrics.log_dropped_lines.inc)
    listen_for_signals(router)
    watch = LoopWatch(asyncio.get_running_loop())
    watch.start()
    try:
        await router.start()
        ending = await router.run()
    except PortTaken as error:
        return fail(EXIT_PORT, str(error))
    except GroupRefused as error:
        return fail(EXIT_CONFIG, f"--shards: {error}")
    except GroupUnreachable as error:
        return fail(EXIT_FAILED, f"--shards: {error}")
    finally:
        await router.close()
        watch.stop()
    return EXIT_OK if ending is Ending.DRAINED else EXIT_INTERNAL


def harden() -> None:
    """Keys, tokens and prompts are in memory: no core dump takes them to a disk."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def announce(address: str, metrics_address: str) -> None:
    """The one line on standard output; what start-up made will stay, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
    # Whoever does not read it, or cannot, is served all the same.
    LogSink(sys.stdout.fileno()).msg(f"ready grpc={address} metrics={metrics_address}")


def listen_for_signals(router: Router) -> None:
    """SIGTERM and SIGINT drain, and at the second time exit.

    SIGUSR1 says that the group is gone for good, SIGUSR2 that it is about to be replaced.
    """
    loop = asyncio.get_running_loop()
    stopping: list[signal.Signals] = []

    def stop(received: signal.Signals) -> None:
        if stopping:
            exit_at_once(received)
        stopping.append(received)
        router.drain()

    for received in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(received, stop, received)
    loop.add_signal_handler(signal.SIGUSR1, router.lose_group)
    loop.add_signal_handler(signal.SIGUSR2, router.excuse_group)


def exit_at_once(received: signal.Signals) -> NoReturn:
    """Ends the process without asking anyone; nothing of it outlives it."""
    os._exit(EXIT_SIGNAL + received)


def make_log(level: str, sink: LogSink) -> Log:
    """A logger of lines that go to `sink`."""
    log: Log = structlog.wrap_logger(
        sink,
        processors=[
            # Who calls, in what is logged on behalf of a call.
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=False,
    )
    return log


if __name__ == "__main__":
    main()
