"""Checks of what a caller says it has of an answer that was cut off. Pure.

Counts come before contents. What depends on the tokenizer is checked in `resumption.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from santacoder.inference.v1 import inference_pb2
from santacoder_router.errors import Reason
from santacoder_router.field_checks import FieldChecks
from santacoder_router.limits import Limits

PATH = "resume.choices"
MAX_BYTE_COUNT = (1 << 31) - 1


class ResumedChoice(NamedTuple):
    """One choice as far as its caller has it; `text_byte_count` None is all that the ids bring."""

    token_ids: tuple[int, ...] = ()
    text_byte_count: int | None = 0
    is_finished: bool = False
    place: int = 0
    """Where the message has it."""


class Resume(NamedTuple):
    """An answer as far as its caller has it, with an entry for each of the request's choices."""

    choices: tuple[ResumedChoice, ...]
    model_revision: str | None

    @property
    def token_count(self) -> int:
        """Ids over all choices."""
        return sum(len(choice.token_ids) for choice in self.choices)


def check_resume(
    checks: FieldChecks,
    request: inference_pb2.CompletionRequest,
    limits: Limits,
    completion_count: int,
) -> Resume | None:
    """None where the request begins an answer. `completion_count` may be out of its own range."""
    if not request.HasField("resume"):
        return None
    message = request.resume
    count = max(1, min(completion_count, limits.completion_count))
    choices = [ResumedChoice()] * count
    if checks.count(PATH, len(message.choices), count, Reason.RESUME_CHOICE, "choices"):
        seen: set[int] = set()
        for place, choice in enumerate(message.choices):
            path = f"{PATH}[{place}]"
            if _is_index_free(checks, f"{path}.index", choice.index, count, seen):
                checked = _choice(checks, path, request, choice, limits)
                choices[choice.index] = checked._replace(place=place)
    revision = message.model_revision if message.HasField("model_revision") else None
    return Resume(tuple(choices), revision)


def _is_index_free(checks: FieldChecks, path: str, index: int, count: int, seen: set[int]) -> bool:
    if not 0 <= index < count:
        allowed = f"0..{count - 1}"
        checks.refuse(path, Reason.RESUME_CHOICE, "out of range", index, allowed)
    elif index in seen:
        checks.refuse(path, Reason.RESUME_CHOICE, "there twice", index, "each choice once")
    else:
        seen.add(index)
        return True
    return False


def _choice(
    checks: FieldChecks,
    path: str,
    request: inference_pb2.CompletionRequest,
    message: inference_pb2.ResumedChoice,
    limits: Limits,
) -> ResumedChoice:
    high = limits.prompt_token_count
    if 1 <= request.stopping.max_new_tokens < high:
        high = request.stopping.max_new_tokens
    ids_path, ids = f"{path}.token_ids", message.token_ids
    valid: tuple[int, ...] = ()
    if checks.count(ids_path, len(ids), high, Reason.RESUME_TOKENS, "ids"):
        valid = checks.token_ids(ids_path, ids, limits.token_count, limits.vocabulary_size)
    byte_count = None
    if message.HasField("text_byte_count"):
        byte_count = checks.integer(
            f"{path}.text_byte_count",
            message.text_byte_count,
            0,
            MAX_BYTE_COUNT,
            Reason.RESUME_TEXT,
        )
    return ResumedChoice(valid, byte_count, message.finished)
