"""Reads config.json into checked sizes. It refuses to look at remote code and at token ids in it.

Public SantaCoder configs name the end-of-text id 50256, which no row of their embedding has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from santacoder_shard import strict_json
from santacoder_shard.errors import CheckpointError
from santacoder_shard.geometry import Activation

CONFIG_LIMIT_BYTES = 1 << 20

ACTIVATIONS: dict[str, Activation] = {
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_erf",
}

# Each changes what the model computes, so a checkpoint that asks for it would answer wrongly here.
REQUIRED_SETTINGS: dict[str, object] = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What only the config can tell; the attention kind comes from the tensors themselves."""

    model_type: str
    layer_count: int
    head_count: int
    embedding_size: int
    inner_size: int
    context_token_count: int
    vocabulary_size: int
    layer_norm_epsilon: float
    activation: Activation


def read_model_config(path: Path) -> ModelConfig:
    """Read and check config.json; a CheckpointError names the field that is wrong."""
    fields = strict_json.parse_object(
        strict_json.read_file(path, CONFIG_LIMIT_BYTES), where=path.name
    )
    model_type = _choice(fields, "model_type", None, ("gpt2", "gpt_bigcode"))
    for name, required in REQUIRED_SETTINGS.items():
        if fields.get(name, required) != required:
            raise _refusal(name, "is not supported", fields[name], json.dumps(required))
    head_count = _count(fields, "n_head", 1 << 10)
    embedding_size = _count(fields, "n_embd", 1 << 16)
    if embedding_size % head_count:
        raise _refusal("n_head", f"must divide n_embd ({embedding_size})", head_count, "a divisor")
    inner_size = 4 * embedding_size
    if fields.get("n_inner") is not None:
        inner_size = _count(fields, "n_inner", 1 << 20)
    activation = _choice(fields, "activation_function", "gelu_new", tuple(ACTIVATIONS))
    return ModelConfig(
        model_type=model_type,
        layer_count=_count(fields, "n_layer", 1 << 10),
        head_count=head_count,
        embedding_size=embedding_size,
        inner_size=inner_size,
        context_token_count=_count(fields, "n_positions", 1 << 20),
        vocabulary_size=_count(fields, "vocab_size", 1 << 24),
        layer_norm_epsilon=_epsilon(fields),
        activation=ACTIVATIONS[activation],
    )


def _count(fields: dict[str, Any], name: str, limit: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        problem = "must be a whole number" if name in fields else "is missing"
        raise _refusal(name, problem, value, f"1 to {limit}")
    return value


def _choice(
    fields: dict[str, Any], name: str, default: str | None, allowed: tuple[str, ...]
) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or value not in allowed:
        problem = "is not supported" if name in fields else "is missing"
        raise _refusal(name, problem, value, ", ".join(allowed))
    return value


def _epsilon(fields: dict[str, Any]) -> float:
    value = fields.get("layer_norm_epsilon", 1e-5)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise _refusal("layer_norm_epsilon", "must be a number", value, "above 0, below 1")
    return float(value)


def _refusal(name: str, problem: str, value: object, allowed: str) -> CheckpointError:
    # A hostile value may be any size and hold line breaks; the message stays one line.
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:60] + "..."
    return CheckpointError(f"config.json: {name}: {problem}; got {shown}; allowed {allowed}")
