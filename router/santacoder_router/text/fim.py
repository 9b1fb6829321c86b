"""Fill-in-the-middle: prefix ids, suffix ids and sentinels to one row of ids. Pure.

Parts are tokenized apart, as in training, so a cursor inside a word needs no care. Sentinels go in
by id, so text that merely spells one stays text. Refuses to know text and lengths allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from santacoder_router.text.prompt import FimOrder, PromptIds


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The ids that mark the parts of an infill prompt."""

    prefix: int
    middle: int
    suffix: int


def sentinel_count(order: FimOrder | None) -> int:
    """How many sentinels a prompt of this order holds; None is a prompt that is no infill."""
    return 0 if order is None else 3


def lay_out(prompt: PromptIds, sentinels: Sentinels | None) -> tuple[int, ...]:
    """The ids to run. `sentinels` may be None for a prompt that is no infill only: ValueError."""
    if prompt.order is None:
        return prompt.prefix
    if sentinels is None:
        raise ValueError("an infill prompt needs sentinels")
    if prompt.order is FimOrder.PSM:
        return (
            *(sentinels.prefix, *prompt.prefix),
            *(sentinels.suffix, *prompt.suffix),
            sentinels.middle,
        )
    # Both prefix and answer follow the middle sentinel: as trained (variant 2), and a prefix that
    # grows while someone types only appends to what is cached.
    return (
        sentinels.prefix,
        *(sentinels.suffix, *prompt.suffix),
        *(sentinels.middle, *prompt.prefix),
    )
