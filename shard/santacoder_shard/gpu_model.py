"""SantaCoder on one GPU: a step as a chain of kernels over buffers that never move.

Three parts, so that graphs of them add up instead of multiplying: `body` runs rows through the
layers, `head` makes the logits of those that sample, `choose` takes an id of each and moves the
slots on. Nothing here allocates or waits, so each part can be captured. Knows no plans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import triton
from torch import Tensor

from santacoder_shard.gpu_buffers import StepBuffers, StepRows
from santacoder_shard.gpu_choice import GpuChoice
from santacoder_shard.kernels.attention import triton_kernel as attention
from santacoder_shard.kernels.embedding.triton_kernel import embed_kernel
from santacoder_shard.kernels.linear.launch import CachePlaces, FewRowKernels, Product, Rows
from santacoder_shard.kernels.norm.launch import CudaNormRows, NormRows, TritonNormRows
from santacoder_shard.kernels.norm_linear.reference import Norm
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.model import Layer, SantaCoder

if TYPE_CHECKING:
    from santacoder_shard.kernels.attention.single_rows import SingleRows

# Up to here splits are spread over the device; above, the rows alone fill it.
SPREAD_ROW_LIMIT = 32
TILE_ROWS = 4
# Sums that ranks share are cut in two, so that two ranks give the bits of one.
ROW_PARALLEL_SEGMENTS = 2
LOG2_E = 1.4426950408889634


class GpuLayer(NamedTuple):
    """A layer's norms and products, and its cache."""

    ln_1: Norm
    ln_2: Norm
    qkv: Product
    attn_proj: Product
    mlp_fc: Product
    mlp_proj: Product
    keys: Tensor
    values: Tensor


class GpuModel:
    """The kernels of one model on one cache; used by one thread, on one stream."""

    def __init__(
        self, model: SantaCoder, cache: KVCache, buffers: StepBuffers, overlap: bool
    ) -> None:
        geometry = model.geometry
        self._geometry, self._model, self._buffers = geometry, model, buffers
        self._overlap = overlap
        self._launch: dict[str, Any] = {"launch_pdl": True} if overlap else {}
        self._few_rows, self._norm_rows, self._single_rows = self._choose_kernels(cache)
        self._layers = [
            self._pack(cast(Layer, layer), keys, values)
            for layer, (keys, values) in zip(model.layers, cache.layers, strict=True)
        ]
        self._final_norm = self._norm(model.ln_f_weight, model.ln_f_bias)
        self._head = Product(model.token_embedding, None, overlap=overlap, few_rows=self._few_rows)
        self.choose = GpuChoice(buffers)
        self._log2_scale = LOG2_E * geometry.head_size**-0.5

    def body(self, rows: StepRows, is_decode: bool) -> None:
        """Run the rows through all layers. `is_decode`: each row is of a sequence of its own."""
        buffers, count = self._buffers, rows.count
        self._embed(rows)
        for layer in self._layers:
            places = CachePlaces(layer.keys, layer.values, buffers.places)
            layer.qkv(self._normed(layer.qkv, layer.ln_1, count), buffers.query, places)
            self._attend(layer, rows, is_decode)
            layer.attn_proj(Rows(buffers.context, count), buffers.hidden)
            layer.mlp_fc(self._normed(layer.mlp_fc, layer.ln_2, count), buffers.inner)
            layer.mlp_proj(Rows(buffers.inner, count), buffers.hidden)

    def head(self, sample_rows: Tensor) -> None:
        """Logits of the rows that `sample_rows` int32 [Q] names, below 0 for none."""
        buffers, count = self._buffers, len(sample_rows)
        self._norm_rows(buffers.hidden, sample_rows, self._final_norm, buffers.normal, count)
        self._head(Rows(buffers.normal, count), buffers.logits)

    def _pack(self, layer: Layer, keys: Tensor, values: Tensor) -> GpuLayer:
        def product(weight: Tensor, bias: Tensor, **options: Any) -> Product:
            return Product(
                weight, bias.float(), overlap=self._overlap, few_rows=self._few_rows, **options
            )

        kv_size = keys.shape[2] * keys.shape[3]
        ln_1 = self._norm(layer.ln_1_weight, layer.ln_1_bias)
        ln_2 = self._norm(layer.ln_2_weight, layer.ln_2_bias)
        shared: dict[str, Any] = {"segments": ROW_PARALLEL_SEGMENTS, "residual": True}
        activation = self._geometry.activation
        return GpuLayer(
            ln_1,
            ln_2,
            product(layer.attn_qkv_weight, layer.attn_qkv_bias, norm=ln_1, kv_size=kv_size),
            product(layer.attn_proj_weight, layer.attn_proj_bias, **shared),
            product(layer.mlp_fc_weight, layer.mlp_fc_bias, norm=ln_2, activation=activation),
            product(layer.mlp_proj_weight, layer.mlp_proj_bias, **shared),
            keys,
            values,
        )

    def _norm(self, weight: Tensor, bias: Tensor) -> Norm:
        return Norm(weight.float(), bias.float(), self._geometry.layer_norm_epsilon)

    def _choose_kernels(
        self, cache: KVCache
    ) -> tuple[FewRowKernels | None, NormRows, SingleRows | None]:
        """What few rows and norms run on; one choice: both add up a norm, in one order."""
        model, geometry = self._model, self._geometry
        if not self._overlap or model.dtype == torch.float32:
            return None, TritonNormRows(self._overlap), None
        # Here, because elsewhere there may be no CUDA to import.
        from santacoder_shard.kernels.attention.single_rows import SingleRows
        from santacoder_shard.kernels.linear.few_rows import CudaFewRowKernels

        few_rows = CudaFewRowKernels(model.dtype, self._buffers.hidden.device)
        norm_rows = CudaNormRows(geometry.embedding_size, model.dtype)
        kv_heads = cache.layers[0][0].shape[2]
        single_rows = SingleRows(geometry, kv_heads, geometry.head_count, model.dtype)
        return few_rows, norm_rows, single_rows if single_rows.is_supported() else None

    def _embed(self, rows: StepRows) -> None:
        buffers, size = self._buffers, self._geometry.embedding_size
        embed_kernel[(rows.count,)](
            rows.slots,
            rows.tokens,
            rows.positions,
            rows.limits,
            buffers.slots.tokens,
            buffers.slots.positions,
            buffers.slots.ended,
            buffers.slots.tables,
            self._model.token_embedding,
            self._model.position_embedding,
            buffers.positions,
            buffers.places,
            buffers.hidden,
            buffers.slots.tables.shape[1],
            SIZE=size,
            BLOCK=triton.next_power_of_2(size),
        )

    def _normed(self, product: Product, norm: Norm, count: int) -> Rows:
        """What a product is applied to: a few rows it normalizes itself, many are ready."""
        buffers = self._buffers
        if product.takes_raw(count):
            return Rows(buffers.hidden, count, is_raw=True)
        self._norm_rows(buffers.hidden, None, norm, buffers.normal, count)
        return Rows(buffers.normal, count)

    def _attend(self, layer: GpuLayer, rows: StepRows, is_decode: bool) -> None:
        kv_heads, head_size = layer.keys.shape[2:]
        heads = self._geometry.head_count
        group = heads // kv_heads
        group_block = triton.next_power_of_2(group)
        shape = {"KV_HEADS": kv_heads, "GROUP": group, "HEAD": head_size, "OVERLAP": self._overlap}
        buffers = self._buffers
        cache = (buffers.query, layer.keys, layer.values)
        place = (buffers.positions, rows.slots, buffers.slots.tables)
        scale = (self._log2_scale, buffers.slots.tables.shape[1])
        single_rows = self._single_rows
        if is_decode and single_rows is not None and rows.count <= single_rows.row_limit:
            state = (rows, buffers.slots, self._log2_scale, buffers.context)
            single_rows(buffers.query, (layer.keys, layer.values), *state)
            return
        if is_decode and rows.count <= SPREAD_ROW_LIMIT:
            splits = buffers.split_moments.shape[1]
            attention.split_kernel[(rows.count, kv_heads, splits)](
                *cache,
                *place,
                buffers.split_contexts,
                buffers.split_moments,
                *scale,
                **shape,
                BLOCK_M=max(16, group_block),
                num_warps=4,
                **self._launch,
            )
            attention.merge_kernel[(rows.count, heads)](
                buffers.split_contexts,
                buffers.split_moments,
                buffers.positions,
                buffers.context,
                splits,
                HEADS=heads,
                HEAD=head_size,
                OVERLAP=self._overlap,
                num_warps=1,
                **self._launch,
            )
            return
        tile_rows = 1 if is_decode else TILE_ROWS
        block_m = max(16, tile_rows * group_block)
        # Each sequence may end in a tile that is not full.
        tile_limit = triton.cdiv(rows.count, tile_rows) + len(buffers.slots.tokens)
        tile_count = min(rows.count, tile_limit)
        attention.fold_kernel[(tile_count, kv_heads)](
            *cache,
            *place,
            rows.tiles,
            buffers.context,
            *scale,
            rows.count,
            **shape,
            GROUP_BLOCK=group_block,
            TILE_ROWS=tile_rows,
            BLOCK_M=block_m,
            num_warps=8 if block_m > 64 else 4,
            num_stages=3 if block_m == 64 else 2,
            **self._launch,
        )
