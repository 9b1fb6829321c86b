"""The scheduler's simulation before the judge of real processes: its clients write histories."""

from __future__ import annotations

from collections import Counter

import pytest
from faults.history import Answer, Entry, Judge, What
from router.core.simulated_clients import Client
from router.core.simulated_life import VOCABULARY_SIZE
from router.core.simulated_model import extend_chain, request_options, sample
from router.core.simulated_worlds import digests_of
from router.core.simulation import Simulation

from santacoder_router.core.plan import Event, Finished, FinishReason, RowState, Tokens

SEEDS = range(30)
ENDS = {
    RowState.END_OF_TEXT: FinishReason.END_OF_TEXT,
    RowState.STOP_ID: FinishReason.STOP_ID,
    RowState.RUNNING: FinishReason.LENGTH,
    RowState.LENGTH: FinishReason.LENGTH,
}


class Recorded(Simulation):
    """A world whose clients write down what they are told."""

    history: list[Entry]
    # Not what a client believes to have: how many ids the scheduler has told it of.
    told_counts: Counter[str]

    def _receive(self, events: list[Event]) -> None:
        for event in events:
            self.history += self._entries(event)
        super()._receive(events)

    def _entries(self, event: Event) -> list[Entry]:
        name = str(event.request_id)
        client = self.clients[event.request_id]
        if isinstance(event, Tokens):
            start = self.told_counts[name]
            self.told_counts[name] += len(event.token_ids)
            return [Entry(What.DELTA, name, start=start, token_ids=event.token_ids)]
        if not isinstance(event, Finished):
            self.told_counts[name] = len(client.request.output_ids)
            return [Entry(What.ASKED, name), *_received_before(name, client)]
        is_natural = event.reason in ENDS.values()
        what = What.FINISHED if is_natural else What.FAILED
        is_unheard = name not in self.told_counts
        asked = [Entry(What.ASKED, name)] if is_unheard else []
        return [*asked, Entry(what, name, reason=event.reason.name)]


def _received_before(name: str, client: Client) -> list[Entry]:
    ids = client.request.output_ids
    return [Entry(What.DELTA, name, token_ids=ids)] if ids else []


def answer_of(client: Client) -> Answer:
    """The whole answer, worked out from the request alone."""
    request, options = client.request, request_options(client.request)
    digest, ids = client.digest, list(client.delivered)
    while len(ids) < request.max_new_tokens:
        token_id, state = sample(digest, len(ids), options, VOCABULARY_SIZE)
        if state in (RowState.END_OF_TEXT, RowState.STOP_ID):
            return Answer(tuple(ids), ENDS[state].name)
        ids.append(token_id)
        digest = extend_chain(digest, token_id)
    return Answer(tuple(ids), FinishReason.LENGTH.name)


def live(seed: int) -> tuple[Recorded, list[str]]:
    """A seed's world, and what the judge says of it."""
    with digests_of(seed):
        world = Recorded(seed)
        world.history, world.told_counts = [], Counter()
        world.run()
    truth = {str(number): [answer_of(client)] for number, client in world.clients.items()}
    # Cancelled, out of time, poisoned: with part of their answers, which must be right.
    failed = [entry.request for entry in world.history if entry.what is What.FAILED]
    return world, Judge(truth, may_fail=failed).hear(world.history)


@pytest.mark.fault("S1", "C2")
def test_simulated_clients_are_told_nothing_wrong() -> None:
    told = 0
    for seed in SEEDS:
        world, violations = live(seed)
        assert violations == [], seed
        told += sum(len(entry.token_ids) for entry in world.history)
    assert told > 3000
