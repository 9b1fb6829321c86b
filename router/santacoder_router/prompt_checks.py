"""Checks of what is to be continued, and of texts and ids to convert: before any tokenizing. Pure.

Counts come before contents: nothing is looked into, element by element, before its size is known.
"""

from __future__ import annotations

from santacoder.inference.v1 import inference_pb2
from santacoder_router.errors import Reason
from santacoder_router.field_checks import FieldChecks
from santacoder_router.limits import Limits
from santacoder_router.text.prompt import FimOrder, InfillPrompt, Prompt, TextPrompt, TokenPrompt

FIM_ORDERS = frozenset(inference_pb2.FimOrder.values())


def check_prompt(
    checks: FieldChecks,
    request: inference_pb2.CompletionRequest,
    limits: Limits,
    keep_nearest: bool,
) -> Prompt:
    """The request's prompt; what is returned beside a violation is only a place-holder."""
    match request.WhichOneof("prompt"):
        case "text":
            return _text(checks, request.text, limits)
        case "infill":
            return _infill(checks, request.infill, limits)
        case "token_ids":
            return _token_ids(checks, request.token_ids, limits, keep_nearest)
    allowed = "text, infill or token_ids"
    checks.refuse("prompt", Reason.PROMPT_MISSING, "not set", "nothing", allowed)
    return TextPrompt("")


def check_tokenize(message: inference_pb2.TokenizeRequest, limits: Limits) -> str:
    """The text to tokenize; may be empty. Raises InvalidRequest."""
    checks = FieldChecks()
    _byte_count(checks, "text", message.text, limits)
    checks.raise_if_any()
    return message.text


def check_detokenize(message: inference_pb2.DetokenizeRequest, limits: Limits) -> tuple[int, ...]:
    """The ids to detokenize; may be none. Raises InvalidRequest."""
    checks = FieldChecks()
    path, ids = "token_ids", message.token_ids
    valid: tuple[int, ...] = ()
    if checks.count(path, len(ids), limits.detokenize_token_count, Reason.ID_COUNT, "ids"):
        valid = checks.token_ids(path, ids, limits.token_count, limits.vocabulary_size)
    checks.raise_if_any()
    return valid


def _text(checks: FieldChecks, text: str, limits: Limits) -> TextPrompt:
    if not text:
        allowed = f"1..{limits.prompt_byte_count} bytes"
        checks.refuse("text", Reason.PROMPT_EMPTY, "empty", "0 bytes", allowed)
    _byte_count(checks, "text", text, limits)
    return TextPrompt(text)


def _infill(
    checks: FieldChecks, message: inference_pb2.InfillPrompt, limits: Limits
) -> InfillPrompt:
    if not message.prefix and not message.suffix:
        allowed = "at least one of prefix and suffix not empty"
        checks.refuse("infill", Reason.FIM_EMPTY, "nothing around the cursor", "0 bytes", allowed)
    _byte_count(checks, "infill", message.prefix + message.suffix, limits)
    order = FimOrder.PSM
    if checks.known("infill.order", message.order, FIM_ORDERS):
        order = FimOrder(message.order or FimOrder.PSM)
    return InfillPrompt(message.prefix, message.suffix, order)


def _token_ids(
    checks: FieldChecks, message: inference_pb2.TokenIds, limits: Limits, keep_nearest: bool
) -> TokenPrompt:
    path, ids = "token_ids.ids", message.ids
    if not ids:
        allowed = f"1..{limits.prompt_token_count} ids"
        checks.refuse(path, Reason.PROMPT_EMPTY, "empty", "0 ids", allowed)
    if keep_nearest:
        # What the context has no room for will be cut; a text makes at most one id a byte.
        high, reason = limits.prompt_byte_count, Reason.PROMPT_TOO_LARGE
        if not checks.count(path, len(ids), high, reason, "ids"):
            return TokenPrompt(())
    elif len(ids) > limits.prompt_token_count:
        checks.refuse(
            path,
            Reason.CONTEXT_LENGTH,
            "too long for the context",
            f"{len(ids)} prompt tokens",
            f"at most {limits.prompt_token_count}",
            prompt_token_count=len(ids),
            context_token_count=limits.context_token_count,
        )
        return TokenPrompt(())
    return TokenPrompt(checks.token_ids(path, ids, limits.token_count, limits.vocabulary_size))


def _byte_count(checks: FieldChecks, path: str, text: str, limits: Limits) -> None:
    count = len(text.encode())
    checks.count(path, count, limits.prompt_byte_count, Reason.PROMPT_TOO_LARGE, "bytes")
