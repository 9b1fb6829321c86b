"""Stands before every method of the server, and lets those through whose token has the right.

Only there where a token file is given. Decides nothing (`access.py`); refuses, counts and logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from santacoder_router.access import Access
from santacoder_router.bad_calls import WINDOW_SECONDS, BadCalls, address_of
from santacoder_router.caller import set_caller
from santacoder_router.errors import Overloaded, Reason, RouterError, Unauthenticated
from santacoder_router.faults import Log
from santacoder_router.handlers import Context, abort
from santacoder_router.metrics import Metrics

FIRST_MESSAGE_SECONDS = 1.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Authentication(grpc.aio.ServerInterceptor):
    """What comes from here on in an RPC's task is logged with the caller's name."""

    def __init__(
        self, access: Access, metrics: Metrics, clock: Callable[[], float], log: Log
    ) -> None:
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._bad_calls = BadCalls()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, or one that refuses."""
        # Without one the library answers UNIMPLEMENTED, which tells nothing.
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        try:
            token = self._access.check(method, handler_call_details.invocation_metadata)
        except RouterError as error:
            return self._refusal(method, error)
        if token is not None:
            set_caller(token.caller, token.limits)
            self._log.debug("call", method=method)
        return handler

    def _refusal(self, method: str, error: RouterError) -> Handler:
        async def refuse(_requests: object, context: Context) -> None:
            # A refusal that overtakes the first message is told as INTERNAL by some clients.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(context.read(), FIRST_MESSAGE_SECONDS)
            refused = self._limited(method, error, address_of(context.peer()))
            name = method.rpartition("/")[2]
            self._metrics.requests.labels(name, refused.code.name).inc()
            await abort(context, refused, f"srv-{secrets.token_hex(8)}")

        # One for all kinds of methods, since it writes no message.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _limited(self, method: str, error: RouterError, address: str) -> RouterError:
        now = self._clock()
        is_too_often = self._bad_calls.note(address, now) and isinstance(error, Unauthenticated)
        if self._bad_calls.is_worth_a_line(address, now):
            self._log.warning(
                "call refused", method=method, reason=error.reason.value, address=address
            )
        if not is_too_often:
            return error
        return Overloaded(
            Reason.AUTH_RATE,
            "token: too many calls without a good one from this address",
            retry_after_seconds=WINDOW_SECONDS,
        )
