"""From a prompt to the bytes that are sent. Pure; knows no network and no time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client._codec import encode_call
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.types import Infill

MOST_TEMPLATES = 1000
"""Data that gives every request options of its own must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of every request beside its prompt. JSON values, told whole to workers."""

    api: str = "stream"
    """`stream`, `unary` or `session`."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Request options by the SDK's keyword names; a prompt's own win."""
    timeout_seconds: float | None = None
    cancel_share: float = 0.0
    """Part of the requests that the load itself cancels."""
    cancel_after_seconds: float = 0.0
    seed: int = 0
    run_id: str = "load"
    """What request ids begin with, so that a server's log tells one run from another."""

    def request_id(self, index: int) -> str:
        """The id of one request, unique on the server."""
        return f"{self.run_id}-{index}"

    def timeout(self, prompt: Prompt) -> float | None:
        """The deadline of one request: what its data says, else the run's."""
        own = prompt.options.get("timeout")
        return own if isinstance(own, float) else self.timeout_seconds

    def cancel_after(self, index: int) -> float | None:
        """Seconds after which this request is to be cancelled; None if it is not."""
        if not self.cancel_share:
            return None
        drawn = random.Random(f"cancel-{self.seed}-{index}").random()
        return self.cancel_after_seconds if drawn < self.cancel_share else None


class Encoder:
    """Makes messages of prompts; what many have in common is checked and made once."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._templates: dict[object, pb.CompletionRequest] = {}

    def completion(self, prompt: Prompt, index: int) -> pb.CompletionRequest:
        """The whole request."""
        request = pb.CompletionRequest()
        request.CopyFrom(self._template(prompt.kind == "infill", prompt.options))
        _put_prompt(request, prompt)
        request.request_id = self._wishes.request_id(index)
        if prompt.max_new_tokens is not None:
            request.stopping.max_new_tokens = prompt.max_new_tokens
        if prompt.cache_salt is not None:
            request.cache_salt = prompt.cache_salt
        return request

    def _template(self, infill: bool, own: Mapping[str, object]) -> pb.CompletionRequest:
        key = (infill, *own.items())
        try:
            found = self._templates.get(key)
        except TypeError:  # a list among the values: rare, and made anew each time
            return self._made(infill, own)
        if found is None:
            found = self._made(infill, own)
            if len(self._templates) < MOST_TEMPLATES:
                self._templates[key] = found
        return found

    def _made(self, infill: bool, own: Mapping[str, object]) -> pb.CompletionRequest:
        merged = {**self._wishes.options, **own}
        # A prompt to be replaced: without one it would be refused.
        return encode_call(Infill("x", "") if infill else "x", merged).completion


def _put_prompt(request: pb.CompletionRequest, prompt: Prompt) -> None:
    match prompt.kind:
        case "text":
            request.text = prompt.text
        case "infill":
            request.infill.prefix = prompt.prefix
            request.infill.suffix = prompt.suffix
        case "token_ids":
            request.token_ids.ids.extend(prompt.token_ids)
