"""Where the choices of an answer begin: anew, or behind what its caller already has. Pure.

The text of a cut-off choice is made again from its ids, so that a character or a stop string that
lies across the border is found as if nothing had been cut. Knows no scheduler and no time.
"""

from __future__ import annotations

from typing import NamedTuple

from santacoder.inference.v1 import inference_pb2
from santacoder_router.choice import ChoiceEnd
from santacoder_router.errors import InvalidRequest, Reason, Violation
from santacoder_router.pending import PendingDelta
from santacoder_router.resolution import ResolvedRequest
from santacoder_router.resume_checks import PATH, Resume, ResumedChoice
from santacoder_router.text.detokenizer import ChoiceText
from santacoder_router.text.stop_strings import StopStrings
from santacoder_router.text.tokenizer import Tokenizer

TOLD = ChoiceEnd(inference_pb2.FINISH_REASON_UNSPECIFIED)
LENGTH = ChoiceEnd(inference_pb2.FINISH_REASON_LENGTH)
NO_STOP_STRINGS = StopStrings(())


class Beginning(NamedTuple):
    """Where one choice begins. With an `end` there is nothing to run."""

    text: ChoiceText
    pending: PendingDelta
    token_ids: tuple[int, ...] = ()
    end: ChoiceEnd | None = None
    is_end_told: bool = False


def begin_anew(resolved: ResolvedRequest, tokenizer: Tokenizer) -> list[Beginning]:
    """The beginnings of an answer of which nobody has anything."""
    valid = resolved.valid
    stop = StopStrings(valid.stop) if valid.stop else NO_STOP_STRINGS
    echo = tokenizer.echo(valid.prompt) if valid.echo else ""
    return [
        Beginning(ChoiceText(tokenizer, stop), PendingDelta(index, tokenizer, echo))
        for index in range(valid.completion_count)
    ]


def go_on(
    resolved: ResolvedRequest, resume: Resume, tokenizer: Tokenizer, ending_ids: frozenset[int]
) -> list[Beginning]:
    """The beginnings of an answer that was cut off. Raises InvalidRequest.

    `ending_ids` end a text unless the request says otherwise.
    """
    valid = resolved.valid
    ends = frozenset(valid.stop_token_ids) | (frozenset() if valid.ignore_eos else ending_ids)
    border = _Border(resolved, tokenizer, ends)
    return [border.beginning(index, choice) for index, choice in enumerate(resume.choices)]


class _Border:
    """Between what was received and what is to come, for the choices of one request."""

    def __init__(
        self, resolved: ResolvedRequest, tokenizer: Tokenizer, ends: frozenset[int]
    ) -> None:
        valid = resolved.valid
        self._max_count = resolved.max_new_tokens
        self._min_count = valid.min_new_tokens
        self._tokenizer = tokenizer
        self._ends = ends
        self._stop = StopStrings(valid.stop) if valid.stop else NO_STOP_STRINGS
        self._echo = tokenizer.echo(valid.prompt) if valid.echo else ""

    def beginning(self, index: int, choice: ResumedChoice) -> Beginning:
        path, ids = f"{PATH}[{choice.place}]", choice.token_ids
        self._check_ids(f"{path}.token_ids", ids)
        text = ChoiceText(self._tokenizer, self._stop)
        piece = text.push(ids)
        if len(piece.token_ids) < len(ids):
            what, place = "goes on after a stop string", len(piece.token_ids)
            raise _refusal(f"{path}.token_ids", what, f"{len(ids)} ids", f"at most {place}")
        if choice.is_finished:
            nothing = PendingDelta(index, self._tokenizer, "")
            return Beginning(text, nothing, ids, TOLD, is_end_told=True)
        brought = self._echo + piece.text
        received_count = self._received_count(f"{path}.text_byte_count", choice, brought)
        pending = PendingDelta(index, self._tokenizer, brought, received_count)
        return Beginning(text, pending, ids, self._end(len(ids), piece.matched_stop))

    def _check_ids(self, path: str, ids: tuple[int, ...]) -> None:
        if len(ids) > self._max_count:
            allowed = f"at most {self._max_count}, which is max_new_tokens"
            raise _refusal(path, "too many ids", len(ids), allowed)
        for place in range(self._min_count, len(ids)):
            if ids[place] in self._ends:
                what, allowed = "an id that ends the text", "ids before the end"
                raise _refusal(f"{path}[{place}]", what, ids[place], allowed)

    def _end(self, token_count: int, matched_stop: str | None) -> ChoiceEnd | None:
        if matched_stop is not None:
            return ChoiceEnd(inference_pb2.FINISH_REASON_STOP, matched_stop=matched_stop)
        return LENGTH if token_count == self._max_count else None

    def _received_count(self, path: str, choice: ResumedChoice, brought: str) -> int:
        """How many characters the caller has."""
        byte_count = choice.text_byte_count
        if byte_count is None:
            return len(brought)
        data = brought.encode()
        if byte_count <= len(data):
            try:
                return len(data[:byte_count].decode())
            except UnicodeDecodeError:
                what, allowed = "ends within a character", "a count of whole characters"
                raise _refusal(path, what, byte_count, allowed, Reason.RESUME_TEXT) from None
        # What a choice held back comes once it has ended, before the caller is told of the end.
        whole = brought + self._held_back(choice.token_ids)
        if byte_count == len(whole.encode()):
            return len(whole)
        what, allowed = "more text than the ids bring", f"0..{len(data)}"
        raise _refusal(path, what, byte_count, allowed, Reason.RESUME_TEXT)

    def _held_back(self, ids: tuple[int, ...]) -> str:
        text = ChoiceText(self._tokenizer, self._stop)
        text.push(ids)
        return text.finish().text


def _refusal(
    path: str, what: str, got: object, allowed: str, reason: Reason = Reason.RESUME_TOKENS
) -> InvalidRequest:
    return InvalidRequest([Violation(path, reason, what, got, allowed)])
