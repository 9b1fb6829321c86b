"""Prompts of token ids without a meaning, of exactly as many tokens as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.lengths import ALLOWED, Lengths, NewTokens, parse_lengths
from santacoder_client.loadtest.data.settings import Seed, Setting, json_of
from santacoder_client.loadtest.data.source import ModelFacts, Prompt
from santacoder_client.loadtest.data.stamp import stamp_of
from santacoder_client.loadtest.data.token_blocks import TokenBlocks, check_room, facts_json

EXACT: Mapping[str, object] = MappingProxyType({"ignore_eos": True})
"""An answer to noise may end anywhere; one of a known length may not."""


PromptTokens = Annotated[
    Lengths, Setting(parse_lengths, "128", "TOKENS", f"prompt length: {ALLOWED}")
]


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """What `--data synthetic` may be told."""

    prompt_tokens: PromptTokens
    new_tokens: NewTokens
    seed: Seed


class SyntheticSource:
    """Every prompt is drawn by itself; two share a prefix only by accident."""

    name = "synthetic"
    schedule = None

    def __init__(self, options: SyntheticOptions, model: ModelFacts) -> None:
        check_room(model, "--prompt-tokens", options.prompt_tokens.high, options.new_tokens.high)
        self._options = options
        self._blocks = TokenBlocks(model)
        self.options = json_of(options)
        self.sha256 = stamp_of(self.name, {**self.options, **facts_json(model)})

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`."""
        label = (self.name, self._options.seed, index)
        draws = Draws(*label)
        count = self._options.prompt_tokens.draw(draws)
        return Prompt(
            kind="token_ids",
            token_ids=self._blocks.draw(count, (*label, "ids")),
            max_new_tokens=self._options.new_tokens.draw(draws),
            options=EXACT,
        )
