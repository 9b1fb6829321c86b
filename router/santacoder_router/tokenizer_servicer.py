"""TokenizerService: the served model's tokenizer, for clients that count or cut."""

from __future__ import annotations

import grpc

from santacoder.inference.v1 import inference_pb2
from santacoder_router.handlers import Call, Handlers, Reception
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.prompt_checks import check_detokenize, check_tokenize

SERVICE_NAME = "santacoder.inference.v1.TokenizerService"


class TokenizerServicer:
    """Tokenize and Detokenize."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def tokenize(
        self, request: inference_pb2.TokenizeRequest, call: Call
    ) -> inference_pb2.TokenizeResponse:
        """Text to ids, none added."""
        call.remaining_seconds()
        serving = self._lifecycle.admit()
        text = check_tokenize(request, serving.limits)
        [token_ids] = await serving.tokenizer_threads.encode(text)
        return inference_pb2.TokenizeResponse(token_ids=token_ids)

    async def detokenize(
        self, request: inference_pb2.DetokenizeRequest, call: Call
    ) -> inference_pb2.DetokenizeResponse:
        """Ids to text."""
        call.remaining_seconds()
        serving = self._lifecycle.admit()
        token_ids = check_detokenize(request, serving.limits)
        return inference_pb2.DetokenizeResponse(text=serving.tokenizer.detokenize(token_ids))


def tokenizer_handler(lifecycle: Lifecycle, reception: Reception) -> grpc.GenericRpcHandler:
    """The service's handler."""
    handlers = Handlers(SERVICE_NAME, reception)
    servicer = TokenizerServicer(lifecycle)
    handlers.add_unary("Tokenize", inference_pb2.TokenizeRequest, servicer.tokenize)
    handlers.add_unary("Detokenize", inference_pb2.DetokenizeRequest, servicer.detokenize)
    return handlers.generic_handler()
