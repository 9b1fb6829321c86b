"""The connection breaks after any byte of an answer: the SDK gives the undisturbed one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from router.fault_proxy import FaultProxy, fault_proxy
from router.mock_shard import Behaviour
from router.oracles import WideOracle
from router.running_router import running_router

from santacoder_client import AsyncClient, Client, Completion, CompletionOptions, RetryPolicy

AT_ONCE = RetryPolicy(first_pause_seconds=0.0)
OPTIONS = CompletionOptions(
    max_new_tokens=40, temperature=0.5, seed=2, stop=["\n☃a"], completion_count=2, echo=True
)
STEP_BYTES = 41


async def stream_async(target: str) -> Completion:
    async with AsyncClient(target, retry=AT_ONCE) as client:
        return await client.stream("é", **OPTIONS).result()


async def stream_sync(target: str) -> Completion:
    def stream() -> Completion:
        with Client(target, retry=AT_ONCE) as client:
            return client.stream("é", **OPTIONS).result()

    return await asyncio.to_thread(stream)


async def count_bytes(proxy: FaultProxy) -> int:
    """Of an answer with all that HTTP/2 puts around it."""
    before = proxy.answered_byte_count
    await stream_async(proxy.target)
    return proxy.answered_byte_count - before


@pytest.mark.fault("N1")
@pytest.mark.parametrize("stream", [stream_async, stream_sync])
def test_wherever_a_connection_breaks_the_answer_is_the_undisturbed_one(
    tmp_path: Path, stream: type
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(oracle=WideOracle(end_every=50), steps_per_lease=1)
        async with (
            running_router(tmp_path, behaviour) as running,
            fault_proxy(running.router.address) as proxy,
        ):
            whole = (await stream_async(running.router.address)).choices
            byte_count = await count_bytes(proxy)
            for cut_after in range(60, byte_count, STEP_BYTES):
                proxy.cut_after = cut_after
                assert (await stream(proxy.target)).choices == whole
            assert proxy.cut_count > byte_count // STEP_BYTES // 2
            name = "santacoder_router_resumed_requests_total"
            resumed_count = running.router.metrics.registry.get_sample_value(name) or 0
            assert resumed_count > byte_count // STEP_BYTES // 3

    asyncio.run(scenario())
