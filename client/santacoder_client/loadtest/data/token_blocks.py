"""Token ids without a meaning: a known number of them, drawn from what the model can read."""

from __future__ import annotations

from santacoder_client.loadtest.data.draws import Label, integers_below
from santacoder_client.loadtest.data.source import DataError, ModelFacts


class TokenBlocks:
    """Draws plain ids: those that the tokenizer knows, less the special ones."""

    def __init__(self, model: ModelFacts) -> None:
        specials = {id_ for id_ in model.special_token_ids if 0 <= id_ < model.token_count}
        self._plain_count = model.token_count - len(specials)
        if self._plain_count < 1:
            raise DataError(
                "model: no token ids to draw from; "
                f"got {model.token_count} with {len(specials)} specials; allowed 1 plain id or more"
            )
        # In order: the n-th plain id is n, and one more for every special at or below it.
        self._specials = sorted(specials)

    def draw(self, count: int, label: Label) -> tuple[int, ...]:
        """Ids that are a pure function of the label."""
        ids = integers_below(self._plain_count, count, label)
        for special in self._specials:
            ids += ids >= special
        drawn: list[int] = ids.tolist()
        return tuple(drawn)


def check_room(model: ModelFacts, what: str, prompt_count: int, new_count: int) -> None:
    """Refuses lengths that no request could have."""
    room = model.context_token_count
    if room is not None and prompt_count + new_count > room:
        raise DataError(
            f"{what}: longer than the model's context with its answer; "
            f"got up to {prompt_count} and {new_count} new tokens; allowed {room} together"
        )


def facts_json(model: ModelFacts) -> dict[str, object]:
    """What of the model decides which ids are drawn."""
    return {
        "token_count": model.token_count,
        "special_token_ids": sorted(model.special_token_ids),
    }
