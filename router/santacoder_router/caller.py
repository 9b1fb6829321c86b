"""Who calls: known to the task of an RPC and to all tasks that it starts. Empty where nobody asks.

Kept where the log finds it too: every line that is written on behalf of a call names its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import structlog

Limits = Mapping[str, Any]
_OWN_LIMITS: ContextVar[Limits] = ContextVar("own limits")


def set_caller(name: str, limits: Limits | None = None) -> None:
    """From here on in this task; for whoever has checked it. `limits` are the token's own."""
    structlog.contextvars.bind_contextvars(caller=name)
    _OWN_LIMITS.set(limits or {})


def current_caller() -> str:
    """The name in the token file or the client's certificate, which holds no zero byte."""
    name: str = structlog.contextvars.get_contextvars().get("caller", "")
    return name


def current_limits() -> Limits:
    """What the caller's token says of limits, by their names."""
    return _OWN_LIMITS.get({})


def tenant_key(cache_salt: bytes) -> bytes:
    """What seeds the prefix cache's hashes: callers do not learn what others have asked.

    How soon a first token comes tells whether its prompt was cached.
    """
    caller = current_caller()
    return caller.encode() + b"\0" + cache_salt if caller else cache_salt
