"""Tells the checkpoint layouts apart by names and shapes, and says which tensors each must hold.

Configs and architecture names are not trusted: two layouts share one config. The config decides one
thing that shapes cannot show, the order of rows in multi-head attention. It refuses to look at
values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from santacoder_shard.errors import CheckpointError, first_few
from santacoder_shard.geometry import Geometry
from santacoder_shard.model_config import ModelConfig
from santacoder_shard.tensor_info import TensorInfo

AttentionStorage = Literal["q_attn", "c_attn", "attn"]

EMBEDDING = "transformer.wte.weight"
HEAD = "lm_head.weight"
FLOAT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
# The causal mask of the original code, one in each layer. Whole names only: `attn.attn.bias` is a
# weight.
BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")

# (stored [in, out], attention tensor, multi-query) to the layout's letter.
LETTERS: dict[tuple[bool, AttentionStorage, bool], str] = {
    (True, "q_attn", True): "a",
    (True, "c_attn", False): "a'",
    (False, "c_attn", True): "b",
    (False, "c_attn", False): "b'",
    (False, "attn", True): "c",
    (False, "q_attn", True): "c0",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a checkpoint stores what every layout means."""

    letter: str
    is_conv1d: bool
    """Weights of attention and MLP are stored [in, out]."""
    attention: AttentionStorage
    is_interleaved: bool
    """Rows of multi-head attention go q, k, v head by head, not all q, all k, all v."""
    embedding: str
    """The stored tensor to take for the embedding and the tied head."""
    embedding_twin: str | None
    """The other stored copy, which must be equal."""


def layer_prefix(layer: int) -> str:
    """What the stored names of a layer start with."""
    return f"transformer.h.{layer}."


def recognise(
    where: str, tensors: Mapping[str, TensorInfo], config: ModelConfig
) -> tuple[Layout, Geometry]:
    """The layout and the sizes; a CheckpointError starting with `where` if no layout fits."""
    attention = _attention_storage(where, tensors)
    is_conv1d = _is_conv1d(where, tensors, config, attention)
    kv_head_count = _kv_head_count(where, tensors, config, attention, is_conv1d)
    is_multi_query = kv_head_count == 1
    letter = LETTERS.get((is_conv1d, attention, is_multi_query))
    if letter is None:
        kind = "multi-query" if is_multi_query else "multi-head"
        order = "[in, out]" if is_conv1d else "[out, in]"
        raise CheckpointError(
            f"{where}: no known layout stores {kind} {attention} tensors in {order} order"
        )
    embeddings = [name for name in (EMBEDDING, HEAD) if name in tensors] or [EMBEDDING]
    layout = Layout(
        letter=letter,
        is_conv1d=is_conv1d,
        attention=attention,
        is_interleaved=not is_multi_query and config.model_type == "gpt_bigcode",
        embedding=embeddings[0],
        embedding_twin=embeddings[1] if len(embeddings) == 2 else None,
    )
    geometry = _geometry(config, kv_head_count)
    _check_tensors(where, tensors, stored_shapes(layout, geometry))
    return layout, geometry


def stored_shapes(layout: Layout, geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that this layout and these sizes need, by stored name."""
    width = geometry.embedding_size
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wpe.weight": (geometry.context_token_count, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }
    for name in (layout.embedding, layout.embedding_twin):
        if name is not None:
            shapes[name] = (geometry.vocabulary_size, width)
    kv_rows = 2 * geometry.kv_head_count * geometry.head_size
    linears = {
        "attn.c_proj": (width, width),
        "mlp.c_fc": (geometry.inner_size, width),
        "mlp.c_proj": (width, geometry.inner_size),
    }
    if layout.attention == "q_attn":
        linears |= {"attn.q_attn": (width, width), "attn.kv_attn": (kv_rows, width)}
    else:
        linears[f"attn.{layout.attention}"] = (width + kv_rows, width)
    for layer in range(geometry.layer_count):
        prefix = layer_prefix(layer)
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{prefix}{name}.{kind}": (width,) for kind in ("weight", "bias")}
        for name, (outputs, inputs) in linears.items():
            stored = (inputs, outputs) if layout.is_conv1d else (outputs, inputs)
            shapes |= {f"{prefix}{name}.weight": stored, f"{prefix}{name}.bias": (outputs,)}
    return shapes


def _attention_storage(where: str, tensors: Mapping[str, TensorInfo]) -> AttentionStorage:
    storages: tuple[AttentionStorage, ...] = ("q_attn", "c_attn", "attn")
    found = [name for name in storages if _attention_name(name) in tensors]
    if len(found) != 1:
        names = ", ".join(_attention_name(name) for name in storages)
        raise CheckpointError(
            f"{where}: must hold one of {names}; got {', '.join(found) or 'none of them'}"
        )
    return found[0]


def _attention_name(storage: AttentionStorage) -> str:
    return f"{layer_prefix(0)}attn.{storage}.weight"


def _is_conv1d(
    where: str,
    tensors: Mapping[str, TensorInfo],
    config: ModelConfig,
    attention: AttentionStorage,
) -> bool:
    """Whether weights are stored [in, out], by the first weight of layer 0 that is not square."""
    widening = "kv_attn" if attention == "q_attn" else attention
    by_attention = f"{layer_prefix(0)}attn.{widening}.weight"
    by_mlp = f"{layer_prefix(0)}mlp.c_fc.weight"
    shape = _shape(where, tensors, by_mlp)
    outputs_inputs = (config.inner_size, config.embedding_size)
    if shape not in (outputs_inputs, outputs_inputs[::-1]):
        raise _wrong_shape(tensors, by_mlp, f"{outputs_inputs} or {outputs_inputs[::-1]}")
    if shape[0] != shape[1]:
        return shape == outputs_inputs[::-1]
    shape = _shape(where, tensors, by_attention)
    if len(shape) != 2 or shape[0] == shape[1]:
        raise CheckpointError(f"{where}: {by_mlp} is square, so that the layout cannot be told")
    return shape[0] == config.embedding_size


def _kv_head_count(
    where: str,
    tensors: Mapping[str, TensorInfo],
    config: ModelConfig,
    attention: AttentionStorage,
    is_conv1d: bool,
) -> int:
    """1 or the number of heads, by the width of the attention tensor."""
    name = f"{layer_prefix(0)}attn.{'kv_attn' if attention == 'q_attn' else attention}.weight"
    shape = _shape(where, tensors, name)
    query_rows = 0 if attention == "q_attn" else config.embedding_size
    head_size = config.embedding_size // config.head_count
    wanted = {
        (query_rows + 2 * count * head_size, config.embedding_size)[
            :: -1 if is_conv1d else 1
        ]: count
        for count in (config.head_count, 1)
    }
    if shape not in wanted:
        raise _wrong_shape(tensors, name, " or ".join(str(item) for item in wanted))
    return wanted[shape]


def _shape(where: str, tensors: Mapping[str, TensorInfo], name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"{where}: lacks tensors: {name}")
    return tensors[name].shape


def _geometry(config: ModelConfig, kv_head_count: int) -> Geometry:
    return Geometry(
        layer_count=config.layer_count,
        head_count=config.head_count,
        kv_head_count=kv_head_count,
        head_size=config.embedding_size // config.head_count,
        embedding_size=config.embedding_size,
        inner_size=config.inner_size,
        context_token_count=config.context_token_count,
        vocabulary_size=config.vocabulary_size,
        layer_norm_epsilon=config.layer_norm_epsilon,
        activation=config.activation,
    )


def _check_tensors(
    where: str, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise CheckpointError(f"{where}: lacks tensors: {first_few(missing)}")
    extra = [name for name in tensors if name not in shapes and not BUFFER.fullmatch(name)]
    if extra:
        shown = first_few([repr(name[:100]) for name in extra])
        raise CheckpointError(f"{where}: holds tensors of no known meaning: {shown}")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise _wrong_shape(tensors, name, str(shape))
        if tensors[name].dtype not in FLOAT_TYPES:
            dtype = str(tensors[name].dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{tensors[name].path.name}: {name}: wrong element type; got {dtype}; "
                "allowed float32, float16, bfloat16"
            )


def _wrong_shape(tensors: Mapping[str, TensorInfo], name: str, allowed: str) -> CheckpointError:
    info = tensors[name]
    return CheckpointError(
        f"{info.path.name}: {name}: wrong shape; got {info.shape}; allowed {allowed}"
    )
