"""An event loop that stands still ends the router, and a machine that did does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from router.running_router import running_router

from santacoder_router.health import MOST_LAG_SECONDS
from santacoder_router.loop_watch import LoopWatch

WAIT_SECONDS = 60.0
STALLED = """
import asyncio, time
from santacoder_router.loop_watch import LoopWatch

async def scenario():
    LoopWatch(asyncio.get_running_loop(), limit_seconds=2.0, look_seconds=0.1).start()
    await asyncio.sleep(0.5)
    print("alive", flush=True)
    def stand_still():
        time.sleep(600)
    stand_still()

asyncio.run(scenario())
"""


@pytest.mark.fault("R5")
def test_a_loop_that_stands_still_ends_its_process_with_70_and_says_where_it_stood() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STALLED], capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert (ended.returncode, ended.stdout) == (70, "alive\n")
    assert ended.stderr.startswith("error: the event loop stands still; leaving\n")
    assert "in stand_still" in ended.stderr


@pytest.mark.fault("R5")
def test_without_the_watch_nobody_ends_it() -> None:
    """The control: what ends the process above is the watch."""
    unwatched = STALLED.replace(".start()", "").replace("time.sleep(600)", "time.sleep(1)")
    ended = subprocess.run([sys.executable, "-c", unwatched], timeout=WAIT_SECONDS)
    assert ended.returncode == 0


def test_a_loop_that_answers_is_let_run_however_long_it_takes_between() -> None:
    async def scenario() -> None:
        ended = threading.Event()
        watch = LoopWatch(asyncio.get_running_loop(), 1.0, 0.02, ended.set)
        watch.start()
        for _ in range(10):
            # Stands still for less than the limit, again and again.
            time.sleep(0.1)
            await asyncio.sleep(0.05)
        watch.stop()
        assert not ended.is_set()

    asyncio.run(scenario())


@pytest.mark.fault("R5")
def test_a_router_whose_loop_was_late_is_not_serving(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            health = running.router._health
            assert health.is_serving()
            health.lag_seconds = MOST_LAG_SECONDS + 0.1
            assert not health.is_serving()

    asyncio.run(scenario())
