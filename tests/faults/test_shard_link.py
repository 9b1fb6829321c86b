"""The link between router and shards misbehaves: requests pause, and no token is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.calm import ask_many, said
from faults.shard_links import linked
from router.fault_proxy import Way
from router.mock_shard import Behaviour
from router.running_router import until

from santacoder_router import group_watch
from santacoder_router.lifecycle import Phase

Figure = Callable[[str, object], None]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """Silence is noticed in a moment; where the machine stands still, once too often."""
    monkeypatch.setattr(group_watch, "HEARTBEAT_LIMIT_SECONDS", 0.5)
    monkeypatch.setattr(group_watch, "CHECK_SECONDS", 0.1)
    return Behaviour(step_seconds=0.002, heartbeat_seconds=0.1)


async def cut_everywhere(folder: Path, step_bytes: int) -> None:
    async with linked(folder, size=2) as link:
        undisturbed = said(await ask_many(link.target, 3))
        for rank, proxy in enumerate(link.proxies):
            before = proxy.answered_byte_count
            assert said(await ask_many(link.target, 3)) == undisturbed
            byte_count = proxy.answered_byte_count - before
            for place in range(40, byte_count, step_bytes):
                deaths = link.failure_count
                proxy.cut_after_answers(place)
                assert said(await ask_many(link.target, 3)) == undisturbed, (rank, place)
                if link.failure_count == deaths:  # so many bytes were not needed this time
                    proxy.cut()
                await link.until_dead(deaths + 1)


@pytest.mark.fault("N2")
def test_a_cut_link_to_any_rank_changes_no_token(tmp_path: Path) -> None:
    asyncio.run(cut_everywhere(tmp_path, step_bytes=6000))


@pytest.mark.long
@pytest.mark.fault("N2")
def test_a_cut_link_to_any_rank_at_many_bytes_changes_no_token(tmp_path: Path) -> None:
    asyncio.run(cut_everywhere(tmp_path, step_bytes=97))


SILENCES: list[tuple[Way, ...]] = [("to target", "to caller"), ("to target",), ("to caller",)]


async def silence(folder: Path, behaviour: Behaviour, ways: tuple[Way, ...]) -> float:
    """How long after the link went silent the group is given up; its tokens are right."""
    loop = asyncio.get_running_loop()
    async with linked(folder, behaviour) as link:
        undisturbed = said(await ask_many(link.target, 3))
        [proxy] = link.proxies
        at = 0.0

        def swallow() -> None:
            nonlocal at
            at = loop.time()
            proxy.silence(*ways)

        answers = asyncio.create_task(link.amid(swallow))
        await until(lambda: link.failure_count > 0)
        seconds = loop.time() - at
        # The old life's frames come now, if they come, and are of another epoch.
        proxy.heal()
        assert said(await answers) == undisturbed
        return seconds


@pytest.mark.fault("N3")
def test_a_silent_link_is_given_up_and_no_token_is_lost(tmp_path: Path, hurried: Behaviour) -> None:
    asyncio.run(silence(tmp_path, hurried, SILENCES[0]))


@pytest.mark.long
@pytest.mark.fault("N3", "N4")
@pytest.mark.parametrize("ways", SILENCES, ids=["both ways", "to the shard", "from the shard"])
def test_a_silent_link_is_found_within_six_seconds(
    tmp_path: Path, ways: tuple[Way, ...], record_property: Figure
) -> None:
    seconds = asyncio.run(silence(tmp_path, Behaviour(step_seconds=0.002), ways))
    line = f"T6 (N3, N4), link silent {' and '.join(ways)}: given up after {seconds:.2f} s"
    record_property("figure", line)
    # By heartbeats after 3.5 s, by pings after 8 at the latest, on a machine that does not stand.
    assert seconds < 18.0


@pytest.mark.fault("N5", "N7")
def test_a_slow_and_a_crumbling_link_only_take_longer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with linked(tmp_path) as link:
            undisturbed = said(await ask_many(link.target, 3))
            [proxy] = link.proxies
            proxy.latency_seconds, proxy.jitter_seconds = 0.02, 0.01
            assert said(await ask_many(link.target, 3)) == undisturbed
            proxy.latency_seconds = proxy.jitter_seconds = 0.0
            proxy.segment_bytes = 1
            assert said(await ask_many(link.target, 3)) == undisturbed
            assert link.failure_count == 0

    asyncio.run(scenario())


async def flap(folder: Path, count: int, seconds: float) -> None:
    async with linked(folder) as link:
        undisturbed = said(await ask_many(link.target, 3))
        [proxy] = link.proxies
        answers = asyncio.create_task(ask_many(link.target, 3))
        for _ in range(count):
            proxy.cut()
            proxy.refuses = not proxy.refuses
            await asyncio.sleep(seconds)
        proxy.refuses = False
        assert said(await answers) == undisturbed
        assert link.failure_count > 0
        assert link.running.router.lifecycle.phase is Phase.SERVING


@pytest.mark.fault("N9")
def test_a_link_that_comes_and_goes_pauses_requests(tmp_path: Path) -> None:
    asyncio.run(flap(tmp_path, count=8, seconds=0.1))


@pytest.mark.long
@pytest.mark.fault("N9")
def test_a_link_that_comes_and_goes_for_half_a_minute_pauses_requests(tmp_path: Path) -> None:
    asyncio.run(flap(tmp_path, count=60, seconds=0.5))
