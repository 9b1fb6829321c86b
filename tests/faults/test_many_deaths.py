"""Groups die again and again under a full load: every answer is the one of a calm router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.history import Entry, Judge, What, truth_of
from router.mock_shard import Behaviour
from router.running_router import Running, running_router, until

from santacoder_client import AsyncClient, CompletionOptions, SantaCoderError
from santacoder_router.core.group import GroupState
from santacoder_router.core.sequence import Residency

FULL_CROWD, SMALL_CROWD = 64, 8
TOKEN_COUNT = 200
# Far enough for everybody to have got somewhere: nobody may be suspected.
STEPS_BETWEEN = 45
FAILURES = "santacoder_router_group_failures_total"
Record = Callable[[str, object], None]


def behaviour(crowd: int) -> Behaviour:
    return Behaviour(slot_count=crowd, block_count=16 * crowd, tokens_per_step=32 * crowd)


async def ask_all(target: str, number: int, crowd: int) -> list[Entry]:
    """A crowd of requests, greedy and seeded: the history."""
    history: list[Entry] = []

    async def ask(client: AsyncClient, place: int) -> None:
        name = f"{number}-{place}"
        options = CompletionOptions(
            max_new_tokens=TOKEN_COUNT, ignore_eos=True, seed=place, temperature=0.5 * (place % 2)
        )
        history.append(Entry(What.ASKED, name))
        count = 0
        try:
            async for piece in client.stream(f"prompt {number} {place}", **options):
                ids = tuple(piece.token_ids)
                history.append(Entry(What.DELTA, name, 0, count, ids))
                count += len(ids)
                if piece.finish_reason is not None:
                    history.append(Entry(What.FINISHED, name, reason=piece.finish_reason.name))
        except SantaCoderError as error:
            history.append(Entry(What.FAILED, name, reason=error.reason or error.code.name))

    async with AsyncClient(target, retry=None) as client:
        await asyncio.gather(*(ask(client, place) for place in range(crowd)))
    return history


async def kill_groups(running: Running, deaths: list[int], most: int) -> None:
    """A group dies every so many steps, and the next one comes; notes how many ran."""
    value = running.router.metrics.registry.get_sample_value
    while len(deaths) < most:
        enough = running.group.shards[0].step_count + STEPS_BETWEEN
        await until(lambda enough=enough: running.group.shards[0].step_count > enough)  # type: ignore[misc]
        deaths.append(running.step_loop.scheduler.stats.running_request_count)
        await running.group.stop()
        await until(lambda: (value(FAILURES) or 0) >= running.group.epoch)
        running.group = running.group.next_life()
        await running.group.start()


async def live(
    folder: Path, crowd: int, wanted_count: int, most_deaths: int = 10**9
) -> tuple[list[str], list[int], int]:
    """Until so many were killed: violations, how many ran at each death, and tokens delivered."""
    violations: list[str] = []
    deaths: list[int] = []
    token_count = number = 0
    async with running_router(folder, behaviour(crowd)) as running:
        while sum(deaths) < wanted_count:
            number += 1
            truth = truth_of(await ask_all(running.router.address, number, crowd))
            running.behaviour.step_seconds = 0.002
            killer = asyncio.create_task(kill_groups(running, deaths, most_deaths))
            history = await ask_all(running.router.address, number, crowd)
            killer.cancel()
            await asyncio.wait({killer})
            running.behaviour.step_seconds = 0.0
            await restore(running)
            violations += Judge(truth).hear(history)
            token_count += sum(len(entry.token_ids) for entry in history)
    return violations, deaths, token_count


async def restore(running: Running) -> None:
    """A group is there, wherever the killing was broken off."""
    value = running.router.metrics.registry.get_sample_value
    await running.group.stop()
    await until(lambda: (value(FAILURES) or 0) >= running.group.epoch)
    running.group = running.group.next_life()
    await running.group.start()


@pytest.mark.fault("S1")
def test_a_crowd_goes_on_through_every_death(tmp_path: Path) -> None:
    violations, deaths, _ = asyncio.run(live(tmp_path, SMALL_CROWD, SMALL_CROWD))
    assert violations == []
    assert len(deaths) >= 2


@pytest.mark.fault("S1")
@pytest.mark.long
def test_ten_thousand_requests_that_were_killed_end_as_if_they_had_not_been(
    tmp_path: Path, record_property: Record
) -> None:
    violations, deaths, token_count = asyncio.run(live(tmp_path, FULL_CROWD, 10_000))
    record_property(
        "figure",
        f"{len(deaths)} deaths of the group killed {sum(deaths)} running requests: none failed,"
        f" {token_count} tokens, {len(violations)} lost, repeated, reordered or changed",
    )
    assert violations == []


@pytest.mark.fault("S1")
def test_control_a_router_that_forgets_accepted_tokens_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defence is the router's log of accepted tokens: without it clients get ids again."""
    at_work = GroupState.at_work

    def forgetful(group: GroupState) -> list[Residency]:
        found = at_work(group)
        for residency in found:
            residency.sequence.output_ids.clear()
        return found

    monkeypatch.setattr(GroupState, "at_work", forgetful)
    violations, _, _ = asyncio.run(live(tmp_path, SMALL_CROWD, 1, most_deaths=1))
    assert any("has other ids" in violation for violation in violations)
