"""A prompt in its two forms: text parts as they came, and id parts ready to be laid out.

Knows neither tokenizers nor sentinels.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FimOrder(enum.IntEnum):
    """Layout of an infill prompt; the numbers are those of inference.proto."""

    PSM = 1
    """fim-prefix P fim-suffix S fim-middle."""
    SPM = 2
    """fim-prefix fim-suffix S fim-middle P."""


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text to continue; not empty."""

    text: str


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Text before and after the cursor; not both empty."""

    prefix: str
    suffix: str
    order: FimOrder


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Ids to continue, special ones allowed; not empty, each known to the tokenizer."""

    token_ids: tuple[int, ...]


Prompt = TextPrompt | InfillPrompt | TokenPrompt


@dataclass(frozen=True, slots=True)
class PromptIds:
    """A prompt's parts as ids, without sentinels.

    A prompt that is no infill is all prefix, and `order` is None.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...] = ()
    order: FimOrder | None = None
