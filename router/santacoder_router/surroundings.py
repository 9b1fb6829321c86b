"""What a running request uses of the router: plain callbacks, so that it knows no other part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from santacoder_router.core import plan
from santacoder_router.faults import Log
from santacoder_router.metrics import Metrics
from santacoder_router.poison_list import PoisonList
from santacoder_router.text.tokenizer import Tokenizer
from santacoder_router.turns import Turns


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a generation uses of the router."""

    tokenizer: Tokenizer
    model_revision: str
    cancel: Callable[[int], None]
    """Ends a sequence in the scheduler."""
    retry_seconds: Callable[[plan.Caller, plan.Priority], float]
    """When it is worth while to come back."""
    hold: Callable[[int, bool], None]
    """Keeps a sequence out of plans, or lets it go on."""
    turns: Turns
    clock: Callable[[], float]
    metrics: Metrics
    log: Log
    poison: PoisonList
