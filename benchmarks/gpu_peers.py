"""transformers' decode step on the same GPU: eager attention, sdpa, static cache and torch.compile.

The same shape, random weights, half precision, the same contexts. Their host is spared what ours
does: ids stay on the device, and it waits for them once in eight steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_parts import Settings
from transformers import AutoModelForCausalLM, DynamicCache, GPTBigCodeConfig, StaticCache

PROMPT_LENGTH = 512
WARM_UP_STEPS = 16
STEP_COUNT = 144
ROUND_COUNT = 2
STEPS_PER_WAIT = 8
EAGER_BATCHES = (1, 32)
BATCHES = (1, 8, 32)
Step = Callable[[torch.Tensor], torch.Tensor]


def measure(settings: Settings) -> dict[str, float]:
    """Eager attention and sdpa, on a cache that grows."""
    values: dict[str, float] = {}
    for attention, batches in (("eager", EAGER_BATCHES), ("sdpa", BATCHES)):
        model = make_model(settings.layer_count, attention)
        for batch in batches:
            key = f"transformers_{attention}_decode_b{batch}_ms"
            values[key] = _median_milliseconds(Decoder(model), batch)
            print(f"{key}: {values[key]:.3f}", flush=True)
        del model
        torch.cuda.empty_cache()
    return values


def measure_compiled(settings: Settings) -> dict[str, float]:
    """sdpa on a cache of fixed size, the step compiled into a CUDA graph."""
    values: dict[str, float] = {}
    model = make_model(settings.layer_count, "sdpa")
    for batch in BATCHES:
        key = f"transformers_compile_decode_b{batch}_ms"
        values[key] = _median_milliseconds(CompiledDecoder(model), batch)
        print(f"{key}: {values[key]:.3f}", flush=True)
    return values


class Decoder:
    """Greedy decoding with a model and its cache."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None

    def begin(self, ids: torch.Tensor) -> torch.Tensor:
        """Empty the cache and run prompts [B, N]; the likeliest next ids [B, 1]."""
        self._cache = DynamicCache()
        return self._run(ids)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Run a token of each sequence [B, 1]; the likeliest next ids."""
        return self._run(ids)

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        output = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return torch.as_tensor(output.logits[:, -1].argmax(-1, keepdim=True))


class CompiledDecoder(Decoder):
    """The same with its steps compiled, on a cache just large enough for prompt and steps."""

    def __init__(self, model: Any, mode: str = "reduce-overhead", **options: Any) -> None:
        super().__init__(model)
        torch.compiler.reset()
        self._compiled: Step = torch.compile(self._run, fullgraph=True, mode=mode, **options)

    def begin(self, ids: torch.Tensor) -> torch.Tensor:
        if self._cache is None:
            room = ids.shape[1] + WARM_UP_STEPS + STEP_COUNT + 1
            self._cache = StaticCache(config=self._model.config, max_cache_len=room)
        else:
            # What was compiled is bound to it.
            self._cache.reset()
        return self._run(ids)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # A graph's output is overwritten by its next run.
        return self._compiled(ids).clone()


def make_model(layer_count: int, attention: str, device: str = "cuda", **changes: Any) -> Any:
    """GPTBigCodeForCausalLM of SantaCoder's shape."""
    fields: dict[str, Any] = {
        "vocab_size": 49280,
        "n_positions": 2048,
        "n_embd": 2048,
        "n_layer": layer_count,
        "n_head": 16,
        "n_inner": 8192,
        "activation_function": "gelu_pytorch_tanh",
        "multi_query": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    make: Any = AutoModelForCausalLM.from_config
    with torch.device(device):
        model = make(
            GPTBigCodeConfig(**fields | changes), dtype=torch.float16, attn_implementation=attention
        )
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _median_milliseconds(decoder: Decoder, batch: int) -> float:
    times: list[float] = []
    for _ in range(ROUND_COUNT):
        ids = decoder.begin(torch.randint(0, 49152, (batch, PROMPT_LENGTH), device="cuda"))
        for _ in range(WARM_UP_STEPS):
            ids = decoder.step(ids)
        times += _times(decoder, ids)
    return statistics.median(times)


def _times(decoder: Decoder, ids: torch.Tensor) -> list[float]:
    """Milliseconds a step, a figure every eight."""
    times: list[float] = []
    torch.cuda.synchronize()
    for _ in range(STEP_COUNT // STEPS_PER_WAIT):
        begin = time.perf_counter()
        for _ in range(STEPS_PER_WAIT):
            ids = decoder.step(ids)
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin) / STEPS_PER_WAIT)
    return times
