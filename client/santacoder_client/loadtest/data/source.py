"""A prompt to send, and what every source of prompts offers. Knows no source and no wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from santacoder_client.loadtest.errors import UsageError

PromptKind = Literal["text", "infill", "token_ids"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's prompt, and what the data says about how to send it."""

    kind: PromptKind
    text: str = ""
    """For `text`."""
    prefix: str = ""
    """For `infill`: what stands before the gap."""
    suffix: str = ""
    """For `infill`: what stands behind the gap."""
    token_ids: tuple[int, ...] = ()
    """For `token_ids`."""
    family: str = ""
    """What the source calls its kind, such as `fim-line` or `prefix-3`; empty if it has none."""
    max_new_tokens: int | None = None
    """None leaves it to the run's options, and then to the server."""
    cache_salt: bytes | None = None
    scheduled_at: float | None = None
    """Seconds from the beginning of a timed trace; None where the data holds no times."""
    expected: str | None = None
    """What stood in the gap, where the source knows; never sent."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Other request options by the SDK's keyword names, checked; they win over the run's."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a source must know of the served model, from GetModel."""

    token_count: int
    """Ids the tokenizer knows."""
    special_token_ids: frozenset[int] = frozenset()
    """Never drawn: an end of text in a prompt would not be a prompt that anyone sends."""
    context_token_count: int | None = None
    """Most tokens of prompt and answer together; None if it is not known."""


class PromptSource(Protocol):
    """Numbered prompts."""

    @property
    def name(self) -> str:
        """The name that `--data` has for it."""

    @property
    def sha256(self) -> str:
        """Stamp over name, options, seed and the content of every file, in hex.

        Two sources with the same stamp give the same prompts.
        """

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`, from 0: the same in every process, whatever was asked before."""


class DescribedSource(PromptSource, Protocol):
    """What the sources here say of themselves, too."""

    @property
    def options(self) -> Mapping[str, object]:
        """What it was made with, as JSON values, for the result and its page."""

    @property
    def schedule(self) -> Sequence[float] | None:
        """When each prompt of a timed trace is due, in seconds; it ends there. Else None."""


class DataError(UsageError):
    """The data cannot be used as asked: exit status 2, before anything is sent."""
