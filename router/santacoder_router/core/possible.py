"""Whether a request could ever run. Knows nothing of who else does."""

from __future__ import annotations

from santacoder_router.core.plan import Request


def check_possible(request: Request, token_limit: int) -> None:
    """Raises ValueError for a request that lacks a prompt or room, or could never run."""
    token_count = len(request.prompt_ids) + request.max_new_tokens
    if not request.prompt_ids or request.max_new_tokens < 1:
        raise ValueError("request: needs a prompt and room for one new token")
    if len(request.output_ids) >= request.max_new_tokens:
        raise ValueError("request: has all its new tokens already")
    if token_count > token_limit:
        raise ValueError(f"request: too many tokens; got {token_count}; allowed 2 to {token_limit}")
