"""Every keyword option, once: its name, where it goes in the message, what it may be, what it does.

The SDK checks and places options by this table, and the command line makes its flags from it.
Knows no message class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from santacoder_client import _bounds, _checks
from santacoder_client._checks import Check
from santacoder_client.types import FimOrder, Priority, TruncatePolicy


class CompletionOptions(TypedDict, total=False):
    """The keyword options of every completion, for type checkers. None is the same as not given.

    What each does is in the client's README, and in `santacoder complete --help`.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    logit_bias: Mapping[int, float] | None
    logprobs: int | None
    echo: bool | None
    completion_count: int | None
    fim_order: FimOrder | str | None
    truncate: TruncatePolicy | str | None
    priority: Priority | str | None
    cache_salt: str | bytes | None
    request_id: str | None
    time_budget: float | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword option."""

    name: str
    group: str
    """The message it lives in: `sampling`, `stopping`, `output`, `infill`; or none, the request."""
    check: Check
    help: str
    field_name: str = ""
    """Its name in the message, where that is not `name`."""

    @property
    def field(self) -> str:
        """Path in the message, as errors name it."""
        field_name = self.field_name or self.name
        return f"{self.group}.{field_name}" if self.group else field_name


fim_order = _checks.one_of(FimOrder)
truncate_policy = _checks.one_of(TruncatePolicy)
priority = _checks.one_of(Priority)

OPTIONS = (
    Option(
        "max_new_tokens", "stopping", _checks.integer, "most new tokens (128, or the room left)"
    ),
    Option("min_new_tokens", "stopping", _checks.integer, "no end before this many new tokens (0)"),
    Option("temperature", "sampling", _checks.real, "0 is greedy and the default"),
    Option("top_k", "sampling", _checks.integer, "keep the k likeliest (0: all)"),
    Option("top_p", "sampling", _checks.real, "keep the likeliest that together reach p (1: all)"),
    Option("min_p", "sampling", _checks.real, "drop what is below p times the likeliest (0)"),
    Option("typical_p", "sampling", _checks.real, "locally typical sampling (1: off)"),
    Option("repetition_penalty", "sampling", _checks.real, "against all tokens seen (1: off)"),
    Option("presence_penalty", "sampling", _checks.real, "once per generated token (0: off)"),
    Option("frequency_penalty", "sampling", _checks.real, "per use of a generated token (0: off)"),
    Option("seed", "sampling", _checks.integer, "same seed, same request: same tokens (drawn)"),
    Option(
        "stop", "stopping", _checks.texts, "stop before this string; may be given several times"
    ),
    Option("stop_token_ids", "stopping", _checks.token_ids, "stop before any of these ids"),
    Option("ignore_eos", "stopping", _checks.boolean, "no token ends the text"),
    Option("logit_bias", "sampling", _checks.biases, "added to the logits of these ids"),
    Option(
        "logprobs", "output", _checks.integer, "log probabilities of the n likeliest tokens (none)"
    ),
    Option("echo", "output", _checks.boolean, "put the prompt in front of the text"),
    Option("completion_count", "", _checks.integer, "number of independent answers (1)"),
    Option("fim_order", "infill", fim_order, "layout of an infill prompt (psm)", "order"),
    Option("truncate", "", truncate_policy, "what to do with a prompt that is too long (refuse)"),
    Option("priority", "", priority, "who goes first when there is not room for all (normal)"),
    Option("cache_salt", "", _checks.salt, "share cached prefixes only under the same salt"),
    Option("request_id", "", _checks.text, "your name for the request (made by the server)"),
    Option("time_budget", "", _checks.time_span, "seconds after which to return what there is"),
    Option("timeout", "", _checks.seconds, "seconds after which to fail (the server's 120)"),
)


def check_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options that were given, ready to send, by name.

    Raises:
        TypeError: an option that does not exist.
        InvalidRequest: a value that no message can carry, or that no server allows.
    """
    unknown = sorted(options.keys() - {option.name for option in OPTIONS})
    if unknown:
        raise TypeError(f"got an unexpected keyword argument {unknown[0]!r}")
    checked = {
        option.name: _checked(option, options[option.name])
        for option in OPTIONS
        if options.get(option.name) is not None
    }
    _bounds.check_order(checked.get("min_new_tokens"), checked.get("max_new_tokens"))
    return checked


def _checked(option: Option, value: object) -> object:
    checked = option.check(option.field, value)
    if bound := _bounds.OF_OPTIONS.get(option.name):
        bound(option.field, checked)
    return checked
