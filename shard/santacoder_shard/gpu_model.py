"""SantaCoder on one GPU: a step as a chain of kernels over buffers that never move.

Three parts, so that graphs of them add up instead of multiplying: `body` runs rows through the
layers, `head` makes the logits of those that sample, `choose` takes an id of each and moves the
slots on. Nothing here allocates or waits, so each part can be captured. Knows no plans.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import triton
from torch import Tensor

from santacoder_shard.gpu_attention import GpuAttention
from santacoder_shard.gpu_buffers import StepBuffers, StepRows
from santacoder_shard.gpu_choice import GpuChoice
from santacoder_shard.gpu_exchange import GpuExchange
from santacoder_shard.kernels.embedding.triton_kernel import embed_kernel
from santacoder_shard.kernels.linear.launch import CachePlaces, FewRowKernels, Product, Rows
from santacoder_shard.kernels.norm.launch import CudaNormRows, NormRows, TritonNormRows
from santacoder_shard.kernels.norm_linear.reference import Norm
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.model import Layer, SantaCoder
from santacoder_shard.parallel import Parallel

# Sums that ranks share are cut in two, so that two ranks give the bits of one.
ROW_PARALLEL_SEGMENTS = 2


class GpuLayer(NamedTuple):
    """A layer's norms and products, and its cache."""

    ln_1: Norm
    ln_2: Norm
    qkv: Product
    attn_proj: Product
    attn_proj_bias: Tensor
    mlp_fc: Product
    mlp_proj: Product
    mlp_proj_bias: Tensor
    keys: Tensor
    values: Tensor


class GpuModel:
    """The kernels of one model on one cache; used by one thread, on one stream."""

    def __init__(
        self,
        model: SantaCoder,
        cache: KVCache,
        buffers: StepBuffers,
        overlap: bool,
        parallel: Parallel | None = None,
        can_describe: bool | None = None,
    ) -> None:
        """`overlap` and `can_describe`: what the GPU can do; None: the one as the other."""
        geometry = model.geometry
        self._geometry, self._model, self._buffers = geometry, model, buffers
        self._overlap, self._parallel = overlap, parallel or Parallel()
        can_describe = overlap if can_describe is None else can_describe
        self._can_describe = can_describe and model.dtype != torch.float32
        self._exchange = GpuExchange(self._parallel, buffers)
        self._few_rows, self._norm_rows, self._attend = self._choose_kernels(cache)
        self._layers = [
            self._pack(cast(Layer, layer), keys, values)
            for layer, (keys, values) in zip(model.layers, cache.layers, strict=True)
        ]
        self._final_norm = self._norm(model.ln_f_weight, model.ln_f_bias)
        self._head = self._product(model.token_embedding, None)
        self.choose = GpuChoice(buffers)

    def body(self, rows: StepRows, is_decode: bool) -> None:
        """Run the rows through all layers. `is_decode`: each row is of a sequence of its own."""
        buffers, count = self._buffers, rows.count
        self._embed(rows)
        for layer in self._layers:
            places = CachePlaces(layer.keys, layer.values, buffers.places)
            layer.qkv(self._normed(layer.qkv, layer.ln_1, count), buffers.query, places)
            self._attend(layer.keys, layer.values, rows, is_decode)
            context, inner = Rows(buffers.context, count), Rows(buffers.inner, count)
            self._exchange.add(layer.attn_proj, context, layer.attn_proj_bias)
            layer.mlp_fc(self._normed(layer.mlp_fc, layer.ln_2, count), buffers.inner)
            self._exchange.add(layer.mlp_proj, inner, layer.mlp_proj_bias)

    def head(self, sample_rows: Tensor) -> None:
        """Logits of the rows that `sample_rows` int32 [Q] names, below 0 for none."""
        buffers, count = self._buffers, len(sample_rows)
        self._norm_rows(buffers.hidden, sample_rows, self._final_norm, buffers.normal, count)
        self._head(Rows(buffers.normal, count), buffers.local_logits)
        self._exchange.gather_logits(count)

    def _pack(self, layer: Layer, keys: Tensor, values: Tensor) -> GpuLayer:
        def summed(weight: Tensor, bias: Tensor) -> Product:
            segments = max(1, ROW_PARALLEL_SEGMENTS // self._parallel.size)
            is_whole = self._exchange.is_alone
            own_bias = bias if is_whole else None
            return self._product(weight, own_bias, segments=segments, residual=is_whole)

        kv_size = keys.shape[2] * keys.shape[3]
        ln_1 = self._norm(layer.ln_1_weight, layer.ln_1_bias)
        ln_2 = self._norm(layer.ln_2_weight, layer.ln_2_bias)
        qkv_bias, fc_bias = layer.attn_qkv_bias.float(), layer.mlp_fc_bias.float()
        attn_proj_bias, mlp_proj_bias = layer.attn_proj_bias.float(), layer.mlp_proj_bias.float()
        activation = self._geometry.activation
        return GpuLayer(
            ln_1=ln_1,
            ln_2=ln_2,
            qkv=self._product(layer.attn_qkv_weight, qkv_bias, norm=ln_1, kv_size=kv_size),
            attn_proj=summed(layer.attn_proj_weight, attn_proj_bias),
            attn_proj_bias=attn_proj_bias,
            mlp_fc=self._product(layer.mlp_fc_weight, fc_bias, norm=ln_2, activation=activation),
            mlp_proj=summed(layer.mlp_proj_weight, mlp_proj_bias),
            mlp_proj_bias=mlp_proj_bias,
            keys=keys,
            values=values,
        )

    def _product(self, weight: Tensor, bias: Tensor | None, **options: Any) -> Product:
        return Product(
            weight,
            bias,
            overlap=self._overlap,
            few_rows=self._few_rows,
            can_describe=self._can_describe,
            **options,
        )

    def _norm(self, weight: Tensor, bias: Tensor) -> Norm:
        return Norm(weight.float(), bias.float(), self._geometry.layer_norm_epsilon)

    def _choose_kernels(
        self, cache: KVCache
    ) -> tuple[FewRowKernels | None, NormRows, GpuAttention]:
        """What few rows, norms and attention run on; the first two add up a norm in one order."""
        model, geometry, buffers = self._model, self._geometry, self._buffers
        heads = geometry.local_head_count(self._parallel.size)
        kv_heads = cache.layers[0][0].shape[2]
        sizes = (geometry, heads, kv_heads, buffers, self._overlap)
        if not self._overlap or model.dtype == torch.float32:
            return None, TritonNormRows(self._overlap), GpuAttention(*sizes, single_rows=None)
        # Here, because elsewhere there may be no CUDA to import.
        from santacoder_shard.kernels.attention.single_rows import SingleRows
        from santacoder_shard.kernels.linear.few_rows import CudaFewRowKernels

        few_rows = CudaFewRowKernels(model.dtype, buffers.hidden.device)
        single_rows = SingleRows(geometry, kv_heads, heads, model.dtype)
        attention = GpuAttention(*sizes, single_rows if single_rows.is_supported() else None)
        return few_rows, CudaNormRows(geometry.embedding_size, model.dtype), attention

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
            buffers.part,
            buffers.slots.tables.shape[1],
            self._parallel.rank * len(self._model.token_embedding),
            len(self._model.token_embedding),
            SIZE=size,
            BLOCK=triton.next_power_of_2(size),
            IS_PART=not self._exchange.is_alone,
        )
        self._exchange.add_embedded(rows.count)

    def _normed(self, product: Product, norm: Norm, count: int) -> Rows:
        """What a product is applied to: a few rows it normalizes itself, many are ready."""
        buffers = self._buffers
        if product.takes_raw(count):
            return Rows(buffers.hidden, count, is_raw=True)
        self._norm_rows(buffers.hidden, None, norm, buffers.normal, count)
        return Rows(buffers.normal, count)
