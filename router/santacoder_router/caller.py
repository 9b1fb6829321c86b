"""Who calls: known to the task of an RPC and to all tasks that it starts. Empty where nobody asks.

Kept where the log finds it too: every line that is written on behalf of a call names its caller.
"""

from __future__ import annotations

import structlog


def set_caller(name: str) -> None:
    """From here on in this task; for whoever has checked it."""
    structlog.contextvars.bind_contextvars(caller=name)


def current_caller() -> str:
    """The name in the token file, which holds no zero byte."""
    name: str = structlog.contextvars.get_contextvars().get("caller", "")
    return name


def tenant_key(cache_salt: bytes) -> bytes:
    """What seeds the prefix cache's hashes: callers do not learn what others have asked.

    How soon a first token comes tells whether its prompt was cached.
    """
    caller = current_caller()
    return caller.encode() + b"\0" + cache_salt if caller else cache_salt
