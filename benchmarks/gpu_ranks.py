"""One stream on two ranks, each with a GPU: milliseconds a token, as its client sees them."""

from __future__ import annotations

import random
import statistics

import grpc
import torch
from gpu_parts import Settings, Unavailable
from gpu_serve import serve
from gpu_served_one import Asking, stream

STREAM_COUNT = 20


def measure(settings: Settings) -> dict[str, float]:
    """Unavailable where there is one GPU, or the version refuses two ranks."""
    if torch.cuda.device_count() < 2:
        raise Unavailable("two ranks need two GPUs; there is one")
    try:
        service = serve(settings, "--tp=2")
    except RuntimeError as failure:
        if "exit code 2" not in str(failure):
            raise
        raise Unavailable("--device cuda with --tp 2 is refused by this version") from None
    draw = random.Random(6)
    with service, grpc.insecure_channel(service.address) as channel:
        ask = Asking(channel)
        rates = [stream(ask, draw) for _ in range(1 + STREAM_COUNT)]
    return {"tp2_decode_b1_ms": 1000 / statistics.median(rates[1:])}
