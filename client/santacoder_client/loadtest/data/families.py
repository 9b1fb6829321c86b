"""Families of prompts that begin alike, as a prefix cache would like them; token ids only."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Annotated

from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.lengths import MOST_TOKENS, Lengths, NewTokens, parse_lengths
from santacoder_client.loadtest.data.settings import Seed, Setting, integer, json_of, real, shown
from santacoder_client.loadtest.data.source import DataError, ModelFacts, Prompt
from santacoder_client.loadtest.data.stamp import stamp_of
from santacoder_client.loadtest.data.synthetic import EXACT
from santacoder_client.loadtest.data.token_blocks import TokenBlocks, check_room, facts_json

MOST_FAMILIES = 100_000
DEFAULT_EXPONENT = 1.0


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often each family is asked for: the n-th one in proportion to n ** -exponent."""

    exponent: float

    def __str__(self) -> str:
        return f"zipf:{self.exponent!r}" if self.exponent else "uniform"


def parse_popularity(what: str, text: str) -> Popularity:
    """Reads `uniform`, `zipf` or `zipf:EXPONENT`."""
    match text.split(":"):
        case ["uniform"]:
            return Popularity(0.0)
        case ["zipf"]:
            return Popularity(DEFAULT_EXPONENT)
        case ["zipf", exponent]:
            return Popularity(real(0.01, 10)(f"{what} zipf", exponent))
    allowed = "uniform, zipf or zipf:EXPONENT"
    raise DataError(f"{what}: unknown; got {shown(text)}; allowed {allowed}")


Families = Annotated[int, Setting(integer(1, MOST_FAMILIES), "8", "N", "how many of them")]
PrefixTokens = Annotated[
    int, Setting(integer(1, MOST_TOKENS), "512", "N", "tokens that one has in common")
]
TailTokens = Annotated[
    Lengths, Setting(parse_lengths, "64", "TOKENS", "tokens of each prompt behind them")
]
HowPopular = Annotated[
    Popularity,
    Setting(parse_popularity, "uniform", "HOW", "uniform, zipf or zipf:EXPONENT"),
]
Tenants = Annotated[
    int, Setting(integer(0, MOST_FAMILIES), "0", "N", "cache salts to draw from (0: no salt)")
]


@dataclass(frozen=True, slots=True)
class FamiliesOptions:
    """What `--data families` may be told."""

    families: Families
    prefix_tokens: PrefixTokens
    tail_tokens: TailTokens
    popularity: HowPopular
    tenants: Tenants
    new_tokens: NewTokens
    seed: Seed


class FamiliesSource:
    """A prompt is its family's prefix and a tail of its own."""

    name = "families"
    schedule = None

    def __init__(self, options: FamiliesOptions, model: ModelFacts) -> None:
        longest = options.prefix_tokens + options.tail_tokens.high
        check_room(model, "--prefix-tokens and --tail-tokens", longest, options.new_tokens.high)
        self._options = options
        self._blocks = TokenBlocks(model)
        # A memory, not a state: a prefix is the same whenever it is asked for.
        self._prefix = lru_cache(maxsize=256)(self._draw_prefix)
        exponent = options.popularity.exponent
        weights = ((rank + 1) ** -exponent for rank in range(options.families))
        self._shares = tuple(accumulate(weights))
        self.options = json_of(options)
        self.sha256 = stamp_of(self.name, {**self.options, **facts_json(model)})

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`."""
        options = self._options
        label = (self.name, options.seed, index)
        draws = Draws(*label)
        family = min(bisect(self._shares, draws.uniform() * self._shares[-1]), options.families - 1)
        tail_count = options.tail_tokens.draw(draws)
        new_count = options.new_tokens.draw(draws)
        salt = f"tenant-{draws.below(options.tenants)}".encode() if options.tenants else None
        return Prompt(
            kind="token_ids",
            token_ids=self._prefix(family) + self._blocks.draw(tail_count, (*label, "tail")),
            family=f"prefix-{family}",
            max_new_tokens=new_count,
            cache_salt=salt,
            options=EXACT,
        )

    def _draw_prefix(self, family: int) -> tuple[int, ...]:
        label = (self.name, self._options.seed, "prefix", family)
        return self._blocks.draw(self._options.prefix_tokens, label)
