"""Generic gRPC handlers: bytes in, our own parsing, and every error out as `google.rpc.Status`.

The library would answer malformed bytes and exceptions with UNKNOWN and a Python class name. Knows
no method's meaning. A handler never ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from prometheus_client import Counter

from santacoder_router.accounts import Account, Accounts
from santacoder_router.errors import DeadlineExceeded, Reason, RouterError, Stalled
from santacoder_router.faults import Log, internal_error
from santacoder_router.metrics import Metrics
from santacoder_router.stalls import Stalls
from santacoder_router.validation import malformed

STATUS_DETAILS_KEY = "grpc-status-details-bin"
TELL_SECONDS = 1.0

Context = grpc.aio.ServicerContext[bytes, bytes]
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
RequestT = TypeVar("RequestT", bound=Message)
InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class Reception:
    """What every RPC meets, whichever its method."""

    accounts: Accounts
    stalls: Stalls
    metrics: Metrics
    log: Log


class Call:
    """One RPC as its method sees it. `request_id` is the server's until the request has its own."""

    def __init__(self, context: Context, clock: Callable[[], float]) -> None:
        self.request_id = f"srv-{secrets.token_hex(8)}"
        self.writing_since: float | None = None
        self.stalled: Stalled | None = None
        self._context = context
        self._clock = clock
        self._task = asyncio.current_task()
        self._account: Account | None = None

    @property
    def account(self) -> Account:
        """Whose call it is; once `identify` knows."""
        if self._account is None:
            raise RuntimeError("nobody has asked who calls")
        return self._account

    def identify(self, accounts: Accounts) -> None:
        """Finds out whose call it is, and counts it; raises Overloaded for one too many."""
        self._account = accounts.of(self._context.peer(), self._context.peer_identities)
        self._account.count_request()

    def remaining_seconds(self) -> float | None:
        """Time to the RPC's deadline, None without one; raises DeadlineExceeded if it is past."""
        seconds = self._context.time_remaining()
        if seconds is not None and seconds <= 0:
            raise DeadlineExceeded(Reason.DEADLINE, "deadline: has passed already")
        return seconds

    async def write(self, message: Message) -> None:
        """Sends one message of a stream; waits while the reader is slow.

        Raises CancelledError where the reader is gone, which gRPC may notice only here.
        """
        self.writing_since = self._clock()
        try:
            await self._context.write(message.SerializeToString())
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None
        self.writing_since = None

    def stall(self, seconds: float) -> None:
        """Ends the RPC: its reader has taken nothing for so long."""
        if self.stalled is None and self._task is not None:
            message = f"stream: its reader has taken nothing for {seconds:.1f} s"
            self.stalled = Stalled(Reason.CLIENT_STALLED, message)
            self._task.cancel()


def parse(message_type: type[RequestT], data: bytes) -> RequestT:
    """A message from its bytes; raises InvalidRequest."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise malformed(message_type.DESCRIPTOR.full_name, len(data)) from None


class Handlers:
    """Makes the handlers of one service; every RPC is counted once, by method and status."""

    def __init__(self, service: str, reception: Reception) -> None:
        self._service = service
        self._accounts = reception.accounts
        self._stalls = reception.stalls
        self._metrics = reception.metrics
        self._log = reception.log
        self._methods: dict[str, Handler] = {}
        self._counters: dict[tuple[str, str], Counter] = {}

    def add_unary(
        self,
        method: str,
        request_type: type[RequestT],
        answer: Callable[[RequestT, Call], Awaitable[Message]],
    ) -> None:
        """A method with one request and one response."""

        async def work(data: bytes, call: Call) -> bytes:
            response = await answer(parse(request_type, data), call)
            return response.SerializeToString()

        async def handle(data: bytes, context: Context) -> bytes:
            return await self._mapped(method, context, work, data)

        self._methods[method] = grpc.unary_unary_rpc_method_handler(handle)

    def add_server_stream(
        self,
        method: str,
        request_type: type[RequestT],
        answer: Callable[[RequestT, Call], Awaitable[None]],
    ) -> None:
        """A method with one request, whose responses `answer` writes to the call."""

        async def work(data: bytes, call: Call) -> None:
            with self._stalls.watching(call):
                await answer(parse(request_type, data), call)

        async def handle(data: bytes, context: Context) -> None:
            await self._mapped(method, context, work, data)

        self._methods[method] = grpc.unary_stream_rpc_method_handler(handle)

    def add_stream(
        self,
        method: str,
        request_type: type[RequestT],
        answer: Callable[[AsyncIterator[RequestT], Call], Awaitable[None]],
    ) -> None:
        """A method with a stream of requests, whose responses `answer` writes to the call."""

        async def parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[RequestT]:
            async for data in requests:
                yield parse(request_type, data)

        async def work(requests: AsyncIterator[bytes], call: Call) -> None:
            with self._stalls.watching(call):
                await answer(parsed(requests), call)

        async def handle(requests: AsyncIterator[bytes], context: Context) -> None:
            await self._mapped(method, context, work, requests)

        self._methods[method] = grpc.stream_stream_rpc_method_handler(handle)

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is to be given."""
        return grpc.method_handlers_generic_handler(self._service, self._methods)

    async def _mapped(
        self,
        method: str,
        context: Context,
        work: Callable[[InputT, Call], Awaitable[OutputT]],
        given: InputT,
    ) -> OutputT:
        """Does the work; every way in which it may end is counted and told."""
        call = Call(context, self._stalls.clock)
        # Counted before the caller hears of it: whoever has an answer finds it in the metrics.
        try:
            call.identify(self._accounts)
            output = await work(given, call)
        except asyncio.CancelledError:
            self._count(method, grpc.StatusCode.CANCELLED)
            if call.stalled is not None:
                self._metrics.client_stalls.inc()
                await _tell_stalled(context, call.stalled, call.request_id)
            raise
        except RouterError as error:
            self._count(method, error.code)
            self._metrics.refused_requests.labels(error.reason).inc()
            await abort(context, error, call.request_id)
        except Exception as cause:
            self._count(method, grpc.StatusCode.INTERNAL)
            log = self._log.bind(request_id=call.request_id)
            fault = internal_error(log, f"{method} failed", cause)
            await abort(context, fault, call.request_id)
        self._count(method, grpc.StatusCode.OK)
        return output

    def _count(self, method: str, code: grpc.StatusCode) -> None:
        key = (method, code.name)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._metrics.requests.labels(*key)
        counter.inc()


async def _tell_stalled(context: Context, error: Stalled, request_id: str) -> None:
    """Tells a reader who may never hear of it; the library keeps it behind what waits there."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TELL_SECONDS):
            await abort(context, error, request_id)


async def abort(context: Context, error: RouterError, request_id: str) -> NoReturn:
    """Ends the RPC with the error as a whole `google.rpc.Status`."""
    details = error.to_status(request_id).SerializeToString()
    await context.abort(error.code, error.message, ((STATUS_DETAILS_KEY, details),))
    raise error
