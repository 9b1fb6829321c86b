"""The log: a line an event on standard error, `timestamp level event key=value`."""

from __future__ import annotations

import sys
from typing import cast

import structlog

from santacoder_shard.log_sink import LogSink

Logger = structlog.typing.FilteringBoundLogger


def make_logger(level: str, sink: LogSink | None = None) -> Logger:
    """A logger of its own, so that importing this package configures nothing for others.

    Without a sink whoever logs waits until the line is taken.
    """
    logger = structlog.wrap_logger(
        sink or structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return cast(Logger, logger)
