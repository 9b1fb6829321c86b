"""What long prompts do to streams that run: 64 streams, and ten prompts of 1,900 tokens a second.

A piece may hold several tokens: its gap, divided by them, counts once for each as a step's time.
"""

from __future__ import annotations

import random
from itertools import pairwise

import gpu_clients
from gpu_clients import Heard, Question, Share
from gpu_parts import Settings
from gpu_serve import quantile, serve

STREAM_COUNT = 64
STREAM_PROMPT_LENGTH, STREAM_NEW_TOKENS = 128, 1500
PROMPT_LENGTH, PROMPT_NEW_TOKENS = 1900, 8
PROMPTS_PER_SECOND = 10
WARM_UP_SECONDS, SECONDS, LAST_SECONDS = 4.0, 30.0, 1.0
# More than any stream can come to in that time.
ANSWERS_PER_STREAM = 40


def measure(settings: Settings) -> dict[str, float]:
    """p99 of steps at the clients of the streams, and of the prompts' first tokens."""
    with serve(settings) as service:
        load = gpu_clients.run(service.address, _shares(settings.client_process_count))
    begin, end = load.began_at + WARM_UP_SECONDS, load.began_at + WARM_UP_SECONDS + SECONDS
    is_prompt = [heard.question.prompt_length == PROMPT_LENGTH for heard in load.heard]
    prompts = [heard for heard, chosen in zip(load.heard, is_prompt, strict=True) if chosen]
    streams = [heard for heard, chosen in zip(load.heard, is_prompt, strict=True) if not chosen]
    # One that was never answered took at least until all was over.
    firsts = [
        1000 * ((heard.times[0] if heard.times else end + LAST_SECONDS) - heard.sent_at)
        for heard in prompts
        if begin <= heard.sent_at < end
    ]
    gaps = [gap for heard in streams for gap in _gaps(heard, begin, end)]
    steps = [1000 * seconds / count for seconds, count in gaps for _ in range(count)]
    return {
        "mixed_step_p99_ms": quantile(steps, 0.99),
        "mixed_step_median_ms": quantile(steps, 0.5),
        "mixed_gap_p99_ms": quantile([1000 * seconds for seconds, _ in gaps], 0.99),
        "mixed_gap_worst_ms": 1000 * max(seconds for seconds, _ in gaps),
        "mixed_ttft_p99_ms": quantile(firsts, 0.99),
        "mixed_ttft_median_ms": quantile(firsts, 0.5),
        "mixed_prompt_count": len(firsts),
        "mixed_streams_tok_s": len(steps) / SECONDS,
        "mixed_client_lag_ms": 1000 * load.lag_seconds,
    }


def _shares(process_count: int) -> list[Share]:
    """Streams in all processes but one, which asks the prompts."""
    draw = random.Random(5)
    stop = WARM_UP_SECONDS + SECONDS + LAST_SECONDS
    shares: list[Share] = []
    stream_processes = max(1, process_count - 1)
    for place in range(stream_processes):
        count = len(range(place, STREAM_COUNT, stream_processes))
        # The first are shorter, so that not all end together.
        firsts = [Question(STREAM_PROMPT_LENGTH, draw.randint(64, 1500)) for _ in range(count)]
        others = [Question(STREAM_PROMPT_LENGTH, STREAM_NEW_TOKENS)] * (count * ANSWERS_PER_STREAM)
        shares.append(Share((*firsts, *others), count, place, stop))
    prompts = [
        Question(PROMPT_LENGTH, PROMPT_NEW_TOKENS, number / PROMPTS_PER_SECOND)
        for number in range(int((WARM_UP_SECONDS + SECONDS) * PROMPTS_PER_SECOND))
    ]
    return [*shares, Share(tuple(prompts), len(prompts), stream_processes, stop)]


def _gaps(heard: Heard, begin: float, end: float) -> list[tuple[float, int]]:
    """Seconds before each piece but the first that came in that time, and its tokens."""
    pieces = zip(pairwise(heard.times), heard.counts[1:], strict=True)
    return [
        (after - before, count)
        for (before, after), count in pieces
        if begin <= before and after < end
    ]
