"""CompletionService: one completion, whole or in pieces. Sessions are in `session.py`."""

from __future__ import annotations

import grpc

from santacoder.inference.v1 import inference_pb2
from santacoder_router.generation import Generation
from santacoder_router.handlers import Call, Handlers, Reception
from santacoder_router.intake import Intake
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.session import SessionServicer
from santacoder_router.validation import SessionDefaults, ValidRequest

SERVICE_NAME = "santacoder.inference.v1.CompletionService"


class CompletionServicer:
    """Complete and StreamComplete."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def complete(
        self, request: inference_pb2.CompleteRequest, call: Call
    ) -> inference_pb2.CompleteResponse:
        """One request, one answer."""
        valid, generation = await self._start(request.completion, call)
        try:
            return await generation.answer()
        finally:
            self._intake.release(valid, generation, call.account)

    async def stream_complete(
        self, request: inference_pb2.StreamCompleteRequest, call: Call
    ) -> None:
        """One request, its answer in pieces."""
        valid, generation = await self._start(request.completion, call)
        try:
            async for event in generation.events():
                await call.write(inference_pb2.StreamCompleteResponse(event=event))
        finally:
            self._intake.release(valid, generation, call.account)

    async def _start(
        self, message: inference_pb2.CompletionRequest, call: Call
    ) -> tuple[ValidRequest, Generation]:
        """To be released however the RPC ends, also by the client's cancel or disappearance."""
        remaining_seconds = call.remaining_seconds()
        defaults = SessionDefaults(call.account.usual_priority)
        valid = self._intake.check(message, call.request_id, defaults)
        call.request_id = valid.request_id
        return valid, await self._intake.start(valid, remaining_seconds, call.account)


def completion_handler(
    intake: Intake, lifecycle: Lifecycle, reception: Reception, session_idle_seconds: float
) -> grpc.GenericRpcHandler:
    """The service's handler."""
    handlers = Handlers(SERVICE_NAME, reception)
    servicer = CompletionServicer(intake)
    sessions = SessionServicer(intake, lifecycle, reception, session_idle_seconds)
    handlers.add_unary("Complete", inference_pb2.CompleteRequest, servicer.complete)
    handlers.add_server_stream(
        "StreamComplete", inference_pb2.StreamCompleteRequest, servicer.stream_complete
    )
    handlers.add_stream(
        "CompletionSession", inference_pb2.CompletionSessionRequest, sessions.completion_session
    )
    return handlers.generic_handler()
