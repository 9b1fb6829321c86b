"""Ten thousand requests of every kind end with blocks and device memory where they began."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint
from running_service import Service, serving
from system.cases import OPTIONS, TOKEN_COUNT

from santacoder_client import AsyncClient, CompletionOptions

CONTEXT = 2048
LONGEST_PROMPT, LONGEST_ANSWER = 2000, 96
WARM_UP_COUNT, REQUEST_COUNT = 1000, 10_000
AT_ONCE = 128
# A fifth of what the sequences that run at once may come to: some are preempted.
LIMITS = ("--max-running=64", "--kv-cache-tokens=26000")
# Torch's allocator takes segments of 2 to 20 MiB and keeps them: one more is no leak.
SEGMENT_BYTES = 20 << 20
MORE_OPTIONS: dict[str, CompletionOptions] = {
    **OPTIONS,
    "logprobs": CompletionOptions(logprobs=5, temperature=1.0, typical_p=0.9),
    "stop": CompletionOptions(stop=["e", "\n"], temperature=1.0),
    "stop_ids": CompletionOptions(stop_token_ids=[5, 6, 7], min_new_tokens=3, temperature=1.5),
    "two_answers": CompletionOptions(completion_count=2, temperature=1.0, seed=3),
    "in_time": CompletionOptions(time_budget=0.05, ignore_eos=True),
}


@pytest.fixture
def service() -> Iterator[Service]:
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    sizes = {"positions": CONTEXT, "embd": 256, "layers": 4}
    model = make_checkpoint(folder / "small", dtype=torch.float16, **sizes)  # type: ignore[arg-type]
    with serving(model, folder, "--device=cuda", *LIMITS) as running:
        yield running
        assert "Traceback" not in running.stop()
    shutil.rmtree(folder)


@pytest.mark.long
def test_ten_thousand_requests_leave_blocks_and_memory_as_they_were(service: Service) -> None:
    asyncio.run(ask_all(service.target, WARM_UP_COUNT, seed=1))
    before = at_rest(service)
    outcomes = asyncio.run(ask_all(service.target, REQUEST_COUNT, seed=2))
    after = at_rest(service)
    print(outcomes, before, after)
    assert sum(outcomes.values()) == REQUEST_COUNT
    # All that was tried came to pass: ends of every kind, cancels, and preemptions.
    assert {"LENGTH", "STOP", "TIME_BUDGET", "cancelled"} <= set(outcomes)
    assert service.metric("santacoder_router_preemptions_total") > 0
    assert service.metric("santacoder_router_group_failures_total") == 0
    assert after[0] == before[0]
    assert after[1] >= before[1] - SEGMENT_BYTES


def at_rest(service: Service) -> tuple[float, int]:
    """Blocks that are free or cached, and free bytes on the GPU, once nothing runs."""
    service.wait_metric("santacoder_router_running_requests", 0)
    service.wait_metric("santacoder_router_queued_requests", 0)
    service.wait_metric("santacoder_router_kv_blocks", 0, state="held")
    blocks = [service.metric("santacoder_router_kv_blocks", state=s) for s in ("free", "cached")]
    return sum(blocks), torch.cuda.mem_get_info()[0]


async def ask_all(target: str, count: int, seed: int) -> Counter[str]:
    """How they ended. Any error but a cancel fails the test."""
    numbers = iter(range(count))
    outcomes: Counter[str] = Counter()

    async def ask_on(client: AsyncClient) -> None:
        for number in numbers:
            outcomes[await ask(client, random.Random(seed << 32 | number), number)] += 1

    async with AsyncClient(target) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(AT_ONCE)))
    return outcomes


async def ask(client: AsyncClient, draw: random.Random, number: int) -> str:
    """One request; a fifth of them is cancelled in the middle."""
    options = next(itertools.islice(MORE_OPTIONS.values(), number % len(MORE_OPTIONS), None))
    prompt = draw.choices(range(TOKEN_COUNT), k=draw.randint(1, LONGEST_PROMPT))
    most = min(CONTEXT - len(prompt), draw.randint(1, LONGEST_ANSWER))
    minimum = min(most, options.get("min_new_tokens") or 0)
    asked = CompletionOptions(max_new_tokens=most, min_new_tokens=minimum, timeout=120.0)
    stream = client.stream(prompt, **(options | asked))
    patience = draw.randint(0, 20) if draw.random() < 0.2 else None
    async for _ in stream:
        if patience == 0:
            stream.cancel()
            return "cancelled"
        patience = None if patience is None else patience - 1
    return (await stream.result()).finish_reason.name
