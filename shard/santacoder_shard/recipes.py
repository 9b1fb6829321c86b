"""Which pieces of which stored tensors make each canonical parameter on each rank; reads nothing.

Rules are those of tensor parallelism for multi-query attention: query rows by head, the one K and V
head whole on every rank, projections by input columns, MLP and vocabulary by rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from santacoder_shard.errors import ParallelSizeError
from santacoder_shard.geometry import Geometry
from santacoder_shard.layouts import Layout, layer_prefix
from santacoder_shard.tensor_reader import Piece


@dataclass(frozen=True, slots=True)
class Recipe:
    """One canonical parameter: pieces of stored tensors, joined along dimension 0."""

    pieces: tuple[Piece, ...]
    is_transposed: bool = False
    """The pieces are stored [in, out] and are turned before they are joined."""
    twin: Piece | None = None
    """Another stored copy, which must be equal."""


def make_recipes(layout: Layout, geometry: Geometry, rank: int, size: int) -> dict[str, Recipe]:
    """How rank `rank` of `size` makes each canonical parameter, by the parameter's name."""
    refusal = geometry.refusal(size)
    if refusal is not None:
        raise ParallelSizeError(refusal)
    width = geometry.embedding_size
    rows = _share(geometry.vocabulary_size, rank, size)
    embedding, *twins = (
        Piece(name, 0, rows.start, rows.stop)
        for name in (layout.embedding, layout.embedding_twin)
        if name is not None
    )
    recipes = {
        "token_embedding": Recipe((embedding,), twin=twins[0] if twins else None),
        "position_embedding": _whole("transformer.wpe.weight", geometry.context_token_count),
        "ln_f_weight": _whole("transformer.ln_f.weight", width),
        "ln_f_bias": _whole("transformer.ln_f.bias", width),
    }
    for layer in range(geometry.layer_count):
        for name, recipe in _layer_recipes(layout, geometry, layer, rank, size).items():
            recipes[f"layers.{layer}.{name}"] = recipe
    return recipes


def _layer_recipes(
    layout: Layout, geometry: Geometry, layer: int, rank: int, size: int
) -> dict[str, Recipe]:
    prefix = layer_prefix(layer)
    width = geometry.embedding_size
    # Dimensions in the file of what goes out of and into a weight.
    outputs, inputs = (1, 0) if layout.is_conv1d else (0, 1)
    qkv = _attention_runs(layout, geometry, f"{prefix}attn.", rank, size)
    inner = _share(geometry.inner_size, rank, size)
    heads = _share(width, rank, size)

    def weight(name: str, dimension: int, share: range) -> Recipe:
        piece = Piece(f"{prefix}{name}.weight", dimension, share.start, share.stop)
        return Recipe((piece,), layout.is_conv1d)

    return {
        "ln_1_weight": _whole(f"{prefix}ln_1.weight", width),
        "ln_1_bias": _whole(f"{prefix}ln_1.bias", width),
        "attn_qkv_weight": Recipe(
            tuple(Piece(f"{name}.weight", outputs, run.start, run.stop) for name, run in qkv),
            layout.is_conv1d,
        ),
        "attn_qkv_bias": Recipe(
            tuple(Piece(f"{name}.bias", 0, run.start, run.stop) for name, run in qkv)
        ),
        "attn_proj_weight": weight("attn.c_proj", inputs, heads),
        "attn_proj_bias": _whole(f"{prefix}attn.c_proj.bias", width),
        "ln_2_weight": _whole(f"{prefix}ln_2.weight", width),
        "ln_2_bias": _whole(f"{prefix}ln_2.bias", width),
        "mlp_fc_weight": weight("mlp.c_fc", outputs, inner),
        "mlp_fc_bias": Recipe((Piece(f"{prefix}mlp.c_fc.bias", 0, inner.start, inner.stop),)),
        "mlp_proj_weight": weight("mlp.c_proj", inputs, inner),
        "mlp_proj_bias": _whole(f"{prefix}mlp.c_proj.bias", width),
    }


def _attention_runs(
    layout: Layout, geometry: Geometry, prefix: str, rank: int, size: int
) -> list[tuple[str, range]]:
    """Runs of output rows, by stored tensor, that make the rank's q, k and v, heads in order."""
    head_size, width = geometry.head_size, geometry.embedding_size
    query_heads = _share(geometry.head_count, rank, size)
    kv_heads = range(1) if geometry.kv_head_count == 1 else query_heads
    kv_rows = geometry.kv_head_count * head_size
    fused = f"{prefix}{layout.attention}"
    if layout.attention == "q_attn":
        origins = ((fused, 0), (f"{prefix}kv_attn", 0), (f"{prefix}kv_attn", kv_rows))
    elif layout.is_interleaved:
        origins = ((fused, 0), (fused, head_size), (fused, 2 * head_size))
    else:
        origins = ((fused, 0), (fused, width), (fused, width + kv_rows))
    stride = 3 * head_size if layout.is_interleaved else head_size
    runs: list[tuple[str, range]] = []
    for (name, origin), heads in zip(origins, (query_heads, kv_heads, kv_heads), strict=True):
        for head in heads:
            start = origin + head * stride
            if runs and runs[-1][0] == name and runs[-1][1].stop == start:
                start = runs.pop()[1].start
            runs.append((name, range(start, origin + head * stride + head_size)))
    return runs


def _whole(name: str, length: int) -> Recipe:
    return Recipe((Piece(name, 0, 0, length),))


def _share(length: int, rank: int, size: int) -> range:
    return range(rank * length // size, (rank + 1) * length // size)
