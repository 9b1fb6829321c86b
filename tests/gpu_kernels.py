"""Calls the GPU's kernels one by one on tensors of the test's own, in an engine's first layer.

Beside `gpu_driver.py` the one file that knows how the engine calls its kernels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from gpu_driver import GpuDriver, settle
from torch import Tensor

from santacoder_shard.model import Layer, SantaCoder

BLOCK_SIZE = 16
PRODUCTS = ("attn_qkv", "attn_proj", "mlp_fc", "mlp_proj", "head")


class Kernels:
    """Of one engine, which must not be used for plans meanwhile."""

    def __init__(self, driver: GpuDriver, model: SantaCoder) -> None:
        self.model = model
        self._kernels: Any = driver.gpu._graphs._model
        self._buffers: Any = driver.gpu._buffers
        self._layer: Any = self._kernels._layers[0]
        settle()

    def parameters(self, product: str) -> tuple[Tensor, Tensor | None]:
        """Weight [out, in] and bias [out]; the head has none."""
        if product == "head":
            return self.model.token_embedding.data, None
        layer = cast(Layer, self.model.layers[0])
        weight, bias = (layer.get_parameter(f"{product}_{kind}") for kind in ("weight", "bias"))
        return weight.data, bias.data

    @property
    def width(self) -> int:
        """Of the residual stream, and of all query heads together."""
        return self.model.geometry.embedding_size

    @property
    def room(self) -> int:
        """Tokens that a slot's blocks hold."""
        return int(self._buffers.slots.tables.shape[1]) * BLOCK_SIZE

    @torch.inference_mode()
    def product(self, product: str, rows: Tensor, before: Tensor) -> Tensor:
        """Rows [R, in] times the weight; `before` float32 [R, E] is what two of them add to."""
        from santacoder_shard.kernels.linear.launch import CachePlaces, Rows

        buffers, layer, count = self._buffers, self._layer, len(rows)
        source = {"attn_proj": buffers.context, "mlp_proj": buffers.inner}.get(
            product, buffers.normal
        )
        source[:count], buffers.hidden[:count] = rows, before
        buffers.places[:count] = torch.arange(count)
        given = Rows(source, count)
        # A kernel may start, and read what it does not expect to change, before the last has ended.
        settle()
        if product == "attn_qkv":
            layer.qkv(given, buffers.query, CachePlaces(layer.keys, layer.values, buffers.places))
            cached = [
                cache.flatten(0, 1).flatten(1)[:count] for cache in (layer.keys, layer.values)
            ]
            return torch.cat([buffers.query[:count], *cached], dim=1).clone()
        if product == "head":
            self._kernels._head(given, buffers.logits)
            return cast(Tensor, buffers.logits[:count].clone())
        if product == "mlp_fc":
            layer.mlp_fc(given, buffers.inner)
            return cast(Tensor, buffers.inner[:count].clone())
        getattr(layer, product)(given, buffers.hidden)
        return cast(Tensor, buffers.hidden[:count].clone())

    @torch.inference_mode()
    def norm(self, hidden: Tensor) -> Tensor:
        """The first norm of float32 rows [R, E], as the products take them."""
        buffers, count = self._buffers, len(hidden)
        buffers.hidden[:count] = hidden
        settle()
        self._kernels._norm_rows(buffers.hidden, None, self._layer.ln_1, buffers.normal, count)
        return cast(Tensor, buffers.normal[:count].clone())

    @torch.inference_mode()
    def norm_and_product(self, hidden: Tensor) -> Tensor:
        """The first product's query columns from rows that are not normalized yet."""
        from santacoder_shard.kernels.linear.launch import CachePlaces

        buffers, layer, count = self._buffers, self._layer, len(hidden)
        buffers.hidden[:count] = hidden
        buffers.places[:count] = -1
        settle()
        rows = self._kernels._normed(layer.qkv, layer.ln_1, count)
        layer.qkv(rows, buffers.query, CachePlaces(layer.keys, layer.values, buffers.places))
        return cast(Tensor, buffers.query[:count].clone())

    @torch.inference_mode()
    def fill_cache(self, generator: torch.Generator) -> None:
        """Random K and V, and every slot's own blocks in its table, backwards."""
        for cache in (self._layer.keys, self._layer.values):
            cache.normal_(generator=generator)
        tables = self._buffers.slots.tables
        count = tables.numel()
        tables.copy_(torch.arange(count, dtype=torch.int32).flip(0).view(tables.shape))

    @torch.inference_mode()
    def attention(self, query: Tensor, slots: Tensor, positions: Tensor, is_decode: bool) -> Tensor:
        """Context [R, heads * head size] of rows at `positions`, which are int32 [R].

        is_decode: each row is of a slot of its own; else all are of one, at ascending positions.
        """
        from santacoder_shard.gpu_attention import TILE_ROWS
        from santacoder_shard.gpu_buffers import StepRows

        buffers, count = self._buffers, len(query)
        buffers.query[:count] = query
        buffers.positions[:count] = positions
        rows = StepRows.view(buffers.words, count)
        rows.slots.copy_(slots)
        rows.tokens.zero_()
        rows.positions.copy_(positions)
        rows.limits.fill_(1 << 20)
        rows.tiles.zero_()
        for number, first in enumerate(range(0, count, TILE_ROWS)):
            rows.tiles[0, number], rows.tiles[1, number] = first, min(TILE_ROWS, count - first)
        buffers.slots.ended.zero_()
        settle()
        self._kernels._attend(self._layer.keys, self._layer.values, rows, is_decode)
        return cast(Tensor, buffers.context[:count].clone())

    def cached(self, slot: int, count: int) -> tuple[Tensor, Tensor]:
        """A slot's first K and V, float64 [count, kv heads, head size] each."""
        blocks = self._buffers.slots.tables[slot, : -(-count // BLOCK_SIZE)].long()
        keys, values = (
            cache[blocks].flatten(0, 1)[:count].double()
            for cache in (self._layer.keys, self._layer.values)
        )
        return keys, values
