"""What each sampling option does to one row, a function an option; knows no batch, seed or slot.

Before temperature a row is float64 logits [N], changed in place. From temperature on it is integer
weights [N], proportional to probabilities: sums of integers are exact, so no order of addition,
thread count or device changes what a filter keeps. A filter sets the weight of what it drops to 0
and keeps at least one id; where equals compete, the lowest id is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

# The sum of all weights must fit in an int64, and each weight in a float64.
_SUM_BITS: Final = 62
_WEIGHT_BITS: Final = 52
# Steps a natural-log unit, when surprise is compared in integers, and when it is added up.
_SURPRISE_SCALE: Final = 2.0**40
_ENTROPY_SCALE: Final = 2.0**58


def add_bias(values: Tensor, bias: Iterable[tuple[int, float]]) -> None:
    """Add each value to its id's logit; ids that do not exist are passed over."""
    for token_id, value in bias:
        if token_id < len(values):
            values[token_id] += value


def penalize_repetition(values: Tensor, seen: Tensor, penalty: float) -> None:
    """Divide positive and multiply negative logits of the ids in `seen` [T], once each."""
    seen = _existing(seen, values)
    logits = values[seen]
    values[seen] = torch.where(logits < 0, logits * penalty, logits / penalty)


def penalize_output(values: Tensor, output: Tensor, presence: float, frequency: float) -> None:
    """Subtract from each id's logit `presence` if it is in `output` [T], `frequency` each time."""
    counts = torch.bincount(_existing(output, values), minlength=len(values))
    values -= presence * (counts > 0).double() + frequency * counts.double()


def ban(values: Tensor, token_ids: Sequence[int]) -> None:
    """Make ids impossible. A ban on every id would leave nothing to choose from and is no ban."""
    banned = sorted({token_id for token_id in token_ids if token_id < len(values)})
    if len(banned) < len(values):
        values[banned] = -math.inf


def weigh(values: Tensor, temperature: float) -> Tensor:
    """Integer weights int64 [N] of logits over temperature.

    The likeliest id weighs 2**46 at 50,000 ids; what is 32 natural-log units below it weighs 0.
    """
    relative = (values - values.max()).div_(temperature).exp_()
    return relative.mul_(2.0 ** weight_bits(len(values))).to(torch.int64)


def weight_bits(token_count: int) -> int:
    """The heaviest of `token_count` ids weighs 2 to this power."""
    return min(_WEIGHT_BITS, _SUM_BITS - token_count.bit_length())


def keep_top_k(weights: Tensor, count: int) -> Tensor:
    """Keep the `count` heaviest ids."""
    return _only(weights, largest_ids(weights, count))


def keep_top_p(weights: Tensor, mass: float) -> Tensor:
    """Keep the smallest set of heaviest ids whose share of the weight reaches `mass`."""
    ids = weights.nonzero().squeeze(1)
    return _keep_mass(weights, _ordered(ids, by=-weights[ids]), mass)


def keep_min_p(weights: Tensor, share: float) -> Tensor:
    """Drop ids lighter than `share` times the heaviest."""
    return weights.masked_fill(weights < math.ceil(share * int(weights.max())), 0)


def keep_typical_p(weights: Tensor, mass: float) -> Tensor:
    """Keep the smallest set whose share reaches `mass` of ids of surprise nearest the entropy."""
    ids = weights.nonzero().squeeze(1)
    probabilities = weights[ids].double() / weights.sum()
    surprise = -probabilities.log()
    terms = (probabilities * surprise).mul_(_ENTROPY_SCALE).to(torch.int64)
    entropy = terms.sum().double() / _ENTROPY_SCALE
    deviation = (surprise - entropy).abs().mul_(_SURPRISE_SCALE).to(torch.int64)
    return _keep_mass(weights, _ordered(ids, by=deviation), mass)


def largest_ids(values: Tensor, count: int) -> Tensor:
    """Ids int64 [min(count, N)] of the largest values, largest first; equals: lowest id first."""
    count = min(count, len(values))
    # topk leaves open which of several equals it takes, so it only tells the smallest value taken.
    smallest = values.topk(max(count, 1), sorted=False).values.min()
    above = (values > smallest).nonzero().squeeze(1)
    equal = (values == smallest).nonzero().squeeze(1)
    ids = torch.cat((above, equal))[:count]
    return ids[values[ids].argsort(descending=True, stable=True)]


def _ordered(ids: Tensor, by: Tensor) -> Tensor:
    # Ascending integers: torch sorts these by radix, several times faster than anything else.
    return ids[by.argsort(stable=True)]


def _keep_mass(weights: Tensor, ordered_ids: Tensor, mass: float) -> Tensor:
    """Keep the first of `ordered_ids`, as few as have `mass` of the whole weight together."""
    cumulative = weights[ordered_ids].cumsum(dim=0)
    target = math.ceil(mass * int(cumulative[-1]))
    kept_count = int(torch.searchsorted(cumulative, target)) + 1
    return _only(weights, ordered_ids[:kept_count])


def _only(weights: Tensor, ids: Tensor) -> Tensor:
    kept = torch.zeros_like(weights, dtype=torch.bool).index_fill_(0, ids, True)
    return weights * kept


def _existing(token_ids: Tensor, values: Tensor) -> Tensor:
    return token_ids[token_ids < len(values)]
