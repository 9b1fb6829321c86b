"""ModelService: what is being served, and the bounds that requests are checked against."""

from __future__ import annotations

import grpc

from santacoder.inference.v1 import inference_pb2
from santacoder_router import __version__
from santacoder_router.caller_limits import CallerLimits
from santacoder_router.core.plan import SamplingParameters
from santacoder_router.handlers import Call, Handlers, Reception
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.limits import Limits
from santacoder_router.resolution import put_sampling
from santacoder_router.serving import Serving

SERVICE_NAME = "santacoder.inference.v1.ModelService"


class ModelServicer:
    """GetModel."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def get_model(
        self, request: inference_pb2.GetModelRequest, call: Call
    ) -> inference_pb2.GetModelResponse:
        """The model and its limits."""
        call.remaining_seconds()
        message = model_message(self._lifecycle.admit())
        put_caller_limits(call.account.limits, message.limits, message.caller_limits)
        return message


def model_message(serving: Serving) -> inference_pb2.GetModelResponse:
    """What is served, as on the wire."""
    about = serving.description
    message = inference_pb2.GetModelResponse(
        name=about.model_name,
        revision=serving.model_revision,
        tokenizer_hash=about.tokenizer_hash,
        layer_count=about.layer_count,
        head_count=about.head_count,
        kv_head_count=about.kv_head_count,
        embedding_size=about.embedding_size,
        vocabulary_size=about.vocabulary_size,
        token_count=about.token_count,
        dtype=about.dtype,
        tensor_parallel_size=about.tensor_parallel_size,
        numerics_id=about.numerics_id,
        infill_supported=serving.limits.infill_supported,
        special_tokens=[
            inference_pb2.SpecialToken(text=text, token_id=token_id)
            for text, token_id in serving.tokenizer.special_tokens.items()
        ],
        end_of_text_token_id=about.end_of_text_id,
        limits=limits_message(serving.limits),
        server_version=__version__,
        kv_cache_token_count=about.block_count * about.block_size,
    )
    put_sampling(SamplingParameters(), message.default_sampling)
    return message


def limits_message(limits: Limits) -> inference_pb2.Limits:
    """The bounds, as on the wire."""
    return inference_pb2.Limits(
        context_token_count=limits.context_token_count,
        prompt_token_count=limits.prompt_token_count,
        prompt_byte_count=limits.prompt_byte_count,
        default_max_new_tokens=limits.default_max_new_tokens,
        completion_count=limits.completion_count,
        stop_string_count=limits.stop_string_count,
        stop_string_byte_count=limits.stop_string_byte_count,
        stop_token_id_count=limits.stop_token_id_count,
        logit_bias_count=limits.logit_bias_count,
        logprobs=limits.logprobs,
        detokenize_token_count=limits.detokenize_token_count,
        running_request_count=limits.running_request_count,
        queued_request_count=limits.queued_request_count,
        queued_token_count=limits.queued_token_count,
    )


def put_caller_limits(
    own: CallerLimits, limits: inference_pb2.Limits, message: inference_pb2.CallerLimits
) -> None:
    """What one caller may have of what there is, as on the wire."""
    message.running_request_count = min(own.running, limits.running_request_count)
    message.queued_request_count = min(own.queued, limits.queued_request_count)
    message.queued_token_count = min(own.queued_tokens, limits.queued_token_count)
    message.session_count = own.sessions
    message.requests_per_second = own.rate
    message.priority = inference_pb2.Priority.ValueType(own.priority)


def model_handler(lifecycle: Lifecycle, reception: Reception) -> grpc.GenericRpcHandler:
    """The service's handler."""
    handlers = Handlers(SERVICE_NAME, reception)
    servicer = ModelServicer(lifecycle)
    handlers.add_unary("GetModel", inference_pb2.GetModelRequest, servicer.get_model)
    return handlers.generic_handler()
