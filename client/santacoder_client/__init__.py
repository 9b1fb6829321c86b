"""SDK for a SantaCoder server: completion and fill-in-the-middle over gRPC. The public names."""

# The first, before all that imports gRPC.
from santacoder_client import _grpc_log as _grpc_log
from santacoder_client._async_session import AsyncSession
from santacoder_client._options import CompletionOptions
from santacoder_client._retry import RetryPolicy
from santacoder_client._session import Session
from santacoder_client._stream import AsyncCompletionStream, CompletionStream
from santacoder_client._tls import TLS
from santacoder_client.async_client import AsyncClient
from santacoder_client.client import Client
from santacoder_client.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    SantaCoderError,
    ServerError,
    Unauthenticated,
    Unavailable,
    Violation,
)
from santacoder_client.types import (
    Accepted,
    CallerLimits,
    Choice,
    Completion,
    FimOrder,
    FinishReason,
    Limits,
    ModelInfo,
    Output,
    Piece,
    PositionLogprobs,
    Priority,
    Prompt,
    Sampling,
    SpecialToken,
    Stopping,
    Timings,
    TokenLogprob,
    TruncatePolicy,
    Usage,
)

__all__ = [
    "TLS",
    "Accepted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncCompletionStream",
    "AsyncSession",
    "CallerLimits",
    "Cancelled",
    "Choice",
    "Client",
    "Completion",
    "CompletionOptions",
    "CompletionStream",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FimOrder",
    "FinishReason",
    "InvalidRequest",
    "Limits",
    "ModelInfo",
    "Output",
    "Overloaded",
    "PermissionDenied",
    "Piece",
    "PositionLogprobs",
    "Priority",
    "Prompt",
    "RetryPolicy",
    "Sampling",
    "SantaCoderError",
    "ServerError",
    "Session",
    "SpecialToken",
    "Stopping",
    "Timings",
    "TokenLogprob",
    "TruncatePolicy",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Violation",
]
