"""What a GPU has to reach: of each figure the floor, what must be, what is aimed at.

All are for one H200, whose memory copies at 4.24 TB/s and reads at 4.48, with 785 TFLOP/s in half
precision. On another GPU the part of a figure that memory decides is scaled by the copy rate of the
same run; an H100 has the same tensor cores, so what they decide is not.
"""

from __future__ import annotations

from dataclasses import dataclass

H200_COPY_TBPS = 4.24


@dataclass(frozen=True, slots=True)
class Bounds:
    """A floor no GPU like this can pass, what must be reached, and what is aimed at."""

    floor: float | None
    must: float
    aim: float

    def scaled(self, factor: float) -> Bounds:
        """The same with every time `factor` as long."""
        floor = None if self.floor is None else self.floor * factor
        return Bounds(floor, self.must * factor, self.aim * factor)


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. `vllm`: vLLM 0.24 on an H200, quoted, fp16 and the same shape."""

    key: str
    name: str
    unit: str
    h200: Bounds
    vllm: float | None = None
    memory_share: float = 1.0
    """How much of the floor is time that the memory takes: 1 scales with it, 0 not at all."""
    is_rate: bool = False
    """More is better."""

    def here(self, slowness: float) -> Bounds:
        """The bounds where the memory is `slowness` times slower than an H200's."""
        factor = self.memory_share * slowness + 1.0 - self.memory_share
        return self.h200.scaled(1.0 / factor if self.is_rate else factor)

    def is_met(self, value: float, bound: float) -> bool:
        return value >= bound if self.is_rate else value <= bound


def slowness(device: str, copy_tbps: float) -> float:
    """How many times longer this device's memory takes than an H200's."""
    return 1.0 if "H200" in device else H200_COPY_TBPS / copy_tbps


def _decode(batch: int, floor: float, must: float, aim: float, vllm: float) -> Goal:
    name = f"decode, batch {batch}, context 512"
    return Goal(f"decode_b{batch}_ms", name, "ms", Bounds(floor, must, aim), vllm)


def _share(key: str, name: str, must: float, aim: float) -> Goal:
    return Goal(key, name, "", Bounds(1.0, must, aim), memory_share=0.0, is_rate=True)


def _cost(key: str, name: str, must: float, aim: float) -> Goal:
    return Goal(key, name, "", Bounds(0.0, must, aim), memory_share=0.0)


GOALS = (
    _decode(1, 0.501, 0.75, 0.60, 1.568),
    _decode(8, 0.511, 0.80, 0.65, 1.640),
    _decode(32, 0.545, 0.92, 0.72, 1.856),
    _decode(64, 0.590, 1.10, 0.82, 2.294),
    _decode(128, 0.68, 1.4, 1.0, 3.268),
    _decode(256, 1.09, 2.0, 1.5, 4.997),
    Goal("decode_ctx2000_b1_ms", "decode, batch 1, context 2000", "ms", Bounds(0.506, 0.82, 0.64)),
    Goal("decode_ctx2000_b64_ms", "decode, batch 64, context 2000", "ms", Bounds(0.851, 1.6, 1.15)),
    Goal("prefill_128_ms", "prefill of 128", "ms", Bounds(0.50, 1.3, 0.80), 4.9),
    Goal("prefill_1024_ms", "prefill of 1024", "ms", Bounds(3.0, 5.5, 4.0), 11.9, 0.0),
    Goal("prefill_1900_ms", "prefill of 1900", "ms", Bounds(6.05, 10.5, 7.5), 12.4, 0.0),
    Goal("ttft_grpc_128_ms", "first token over gRPC, 128", "ms", Bounds(1.7, 4.0, 2.0), 4.9, 0.3),
    Goal("ttft_grpc_1024_ms", "first token over gRPC, 1024", "ms", Bounds(5.5, 9.0, 5.5), 11.9, 0),
    _share("served_share_b1", "one stream over gRPC, share of the engine's rate", 0.90, 0.97),
    _share("served_share_b256", "256 streams over gRPC, share of the job in process", 0.65, 0.90),
    Goal(
        "served_b256_tok_s",
        "256 streams over gRPC, 128 in, 512 out",
        "tokens/s",
        Bounds(235_000, 80_000, 140_000),
        is_rate=True,
    ),
    Goal(
        "served_1024x512x128_tok_s",
        "1024 requests over gRPC, 512 in, 128 out",
        "tokens/s",
        Bounds(66_000, 32_000, 46_000),
        27_560,
        memory_share=0.3,
        is_rate=True,
    ),
    Goal(
        "mixed_step_p99_ms",
        "64 streams, ten prompts of 1900 a second: p99 step",
        "ms",
        Bounds(1.03, 3.5, 1.8),
        memory_share=0.6,
    ),
    Goal(
        "mixed_ttft_p99_ms",
        "the same, p99 first token of those prompts",
        "ms",
        Bounds(None, 40.0, 20.0),
        memory_share=0.0,
    ),
    Goal("ready_warm_s", "start to ready, kernels cached", "s", Bounds(2.5, 10, 4), 58, 0.0),
    Goal("ready_cold_s", "start to ready, nothing cached", "s", Bounds(2.5, 40, 15), 58, 0.0),
    Goal("tp2_decode_b1_ms", "two ranks, batch 1", "ms", Bounds(0.30, 0.65, 0.46), 1.955),
    _cost("invariance_cost_decode", "cost of the same bits, decode", 0.05, 0.0),
    _cost("invariance_cost_prefill", "cost of the same bits, prefill of 1024", 0.10, 0.02),
)
