"""What the SDK and the command say to a caller who asks for more than it may have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from router.mock_shard import Behaviour
from router.test_overload import begun, guarded

from santacoder_client import CallerLimits, Client, Overloaded, PermissionDenied, Priority
from santacoder_client.cli import main


def test_the_sdk_tells_limits_and_what_is_above_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=0.05)
        names = {"alice": "running=1 queued=1 rate=50"}
        async with guarded(tmp_path, names, behaviour) as running:
            first = await begun(running, "alice")

            def ask() -> None:
                with Client(running.router.address, token="alice", retry=None) as client:
                    assert client.model().caller_limits == CallerLimits(
                        1, 1, 65_536, 64, 50.0, Priority.NORMAL
                    )
                    with pytest.raises(PermissionDenied) as denied:
                        client.complete("x", priority="high")
                    assert denied.value.reason == "PRIORITY_DENIED"
                    assert denied.value.metadata == {"priority": "normal"}
                    with pytest.raises(Overloaded) as refused:
                        client.complete("x", completion_count=2)
                    assert refused.value.reason == "CALLER_QUEUE_FULL"
                    assert refused.value.retry_after is not None

            await asyncio.to_thread(ask)
            first.cancel()

    asyncio.run(scenario())


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SANTACODER_TOKEN", "alice")

    async def scenario() -> None:
        async with guarded(tmp_path, {"alice": ""}, Behaviour()) as running:
            target = ["--target", running.router.address]
            words = ["complete", "x", "--priority", "high", *target]
            assert await asyncio.to_thread(main, words) == 1
            error = capsys.readouterr().err
            assert error.startswith(
                "error: priority: above this caller's right; got high; allowed low, normal\n"
            )
            assert await asyncio.to_thread(main, ["info", *target]) == 0
            assert "requests_per_second" in capsys.readouterr().out

    asyncio.run(scenario())
