"""Cuts a prompt to a number of tokens, keeping what is nearest to the cursor. Pure, over ids.

Decides what to drop, never whether to: that is the request's policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from santacoder_router.text.prompt import PromptIds


@dataclass(frozen=True, slots=True)
class Cut:
    """A prompt that fits, and how many ids each part lost."""

    prompt: PromptIds
    dropped_prefix_count: int
    dropped_suffix_count: int


def keep_nearest(prompt: PromptIds, token_count: int) -> Cut:
    """Keep the end of the prefix and the start of the suffix, `token_count` ids of both at most.

    The suffix gets a quarter, or more where the prefix leaves more over; the prefix gets the rest.
    A completion depends most on what stands right before it, so the prefix goes first.
    """
    if token_count < 0:
        raise ValueError(f"token_count is negative: {token_count}")
    prefix_count, suffix_count = len(prompt.prefix), len(prompt.suffix)
    suffix_kept = min(suffix_count, max(token_count // 4, token_count - prefix_count))
    prefix_kept = min(prefix_count, token_count - suffix_kept)
    cut = replace(
        prompt,
        prefix=prompt.prefix[prefix_count - prefix_kept :],
        suffix=prompt.suffix[:suffix_kept],
    )
    return Cut(cut, prefix_count - prefix_kept, suffix_count - suffix_kept)
