"""One client at an idle server: time to the first token of a text, and the rate of one stream.

The client is synchronous and on the same machine; what is measured is what it sees.
"""

from __future__ import annotations

import random
import statistics
import string
import time
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.experimental
import router_clients as clients
from gpu_clients import TOKEN_COUNT
from gpu_parts import Settings
from gpu_serve import quantile, serve
from service import Service

from santacoder.inference.v1 import inference_pb2 as pb

LENGTHS = (128, 1024)
FIRST_TOKEN_COUNT = 200
WARM_UP_COUNT = 10
NEW_TOKENS = 16
IDLE_SECONDS = 0.02
STREAM_PROMPT_LENGTH = 512
STREAM_NEW_TOKENS = 144
STREAM_COUNT = 20
WORD_LENGTH = 3


@dataclass(frozen=True, slots=True)
class Stream:
    """Seconds from sending to each piece, and the pieces' tokens."""

    times: list[float]
    counts: list[int]

    @property
    def tokens_per_second(self) -> float:
        """From the first piece on."""
        return sum(self.counts[1:]) / (self.times[-1] - self.times[0])


def measure(settings: Settings) -> dict[str, float]:
    """First tokens, then streams beside the engine's own rate."""
    values: dict[str, float] = {}
    draw = random.Random(4)
    with serve(settings) as service:
        option = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
        with grpc.insecure_channel(service.address, options=(option,)) as channel:
            ask = Asking(channel)
            for length in LENGTHS:
                times = [_first_token(service, ask, draw, length) for _ in range(WARM_UP_COUNT)]
                times = [_first_token(service, ask, draw, length) for _ in range(FIRST_TOKEN_COUNT)]
                values[f"ttft_grpc_{length}_ms"] = statistics.median(times)
                values[f"ttft_grpc_{length}_p99_ms"] = quantile(times, 0.99)
            rates = [stream(ask, draw) for _ in range(STREAM_COUNT)]
    values["served_b1_tok_s"] = statistics.median(rates)
    engine = 1000 / settings.known["decode_b1_ms"]
    values["served_share_b1"] = values["served_b1_tok_s"] / engine
    return values


class Asking:
    """StreamComplete over bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._start: Any = channel.unary_stream(f"{clients.COMPLETION}/StreamComplete")

    def __call__(self, completion: pb.CompletionRequest, new_token_count: int) -> Stream:
        completion.stopping.max_new_tokens = new_token_count
        completion.stopping.ignore_eos = True
        payload = pb.StreamCompleteRequest(completion=completion).SerializeToString()
        begin = time.perf_counter()
        arrivals = [(time.perf_counter() - begin, raw) for raw in self._start(payload)]
        pieces = [(at, count) for at, raw in arrivals if (count := clients.token_count_of(raw))]
        return Stream([at for at, _ in pieces], [count for _, count in pieces])


def _first_token(service: Service, ask: Asking, draw: random.Random, length: int) -> float:
    """Milliseconds; the server had nothing to do before."""
    prompt = text(service, draw, length)
    time.sleep(IDLE_SECONDS)
    return 1000 * ask(pb.CompletionRequest(text=prompt), NEW_TOKENS).times[0]


def stream(ask: Asking, draw: random.Random) -> float:
    """Tokens a second of one stream that nobody disturbs."""
    completion = pb.CompletionRequest()
    completion.token_ids.ids.extend(draw.choices(range(TOKEN_COUNT), k=STREAM_PROMPT_LENGTH))
    return ask(completion, STREAM_NEW_TOKENS).tokens_per_second


def text(service: Service, draw: random.Random, token_count: int) -> str:
    """A text of so many tokens, never the same twice."""
    words = [
        "".join(draw.choices(string.ascii_lowercase, k=WORD_LENGTH)) for _ in range(token_count)
    ]
    while (excess := len(service.client.tokenize(" ".join(words))) - token_count) > 0:
        # A word has four tokens at most, with its space.
        del words[-max(1, excess // 4) :]
    # A parenthesis never joins with what is beside it.
    made = " ".join(words) + "(" * -excess
    if len(service.client.tokenize(made)) != token_count:
        raise RuntimeError(f"no text of {token_count} tokens was found")
    return made
