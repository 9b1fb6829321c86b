"""Our own faults: the caller gets an id, the log gets the cause under that id."""

from __future__ import annotations

import secrets

import structlog

from santacoder_router.errors import InternalError, Reason

Log = structlog.typing.FilteringBoundLogger


def internal_error(
    log: Log, what: str, cause: BaseException | None = None, reason: Reason = Reason.INTERNAL
) -> InternalError:
    """Logs `what`, with the trace of `cause` if there is one, and makes the error to send."""
    error_id = secrets.token_hex(8)
    log.error(what, error_id=error_id, exc_info=cause)
    return InternalError(error_id, reason)
