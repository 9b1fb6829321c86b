"""SantaCoder on one rank: parameters and a forward step. Knows no files, plans or sampling."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from santacoder_shard.geometry import Geometry
from santacoder_shard.inputs import StepInputs
from santacoder_shard.kernels.attention import paged_attention
from santacoder_shard.kernels.linear import pack_linear
from santacoder_shard.kernels.linear.choose import Linear
from santacoder_shard.kernels.norm_linear import norm_linear
from santacoder_shard.kernels.norm_linear.reference import Norm
from santacoder_shard.kernels.norm_qkv import norm_qkv
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.parallel import Parallel


def _empty(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)


def _norm(weight: Tensor, bias: Tensor, geometry: Geometry) -> Norm:
    return Norm(weight.float(), bias.float(), geometry.layer_norm_epsilon)


class PackedLayer(NamedTuple):
    """What a layer runs with. `attn_proj` and `mlp_proj` give this rank's part of a sum."""

    ln_1: Norm
    attn_qkv: Linear
    attn_proj: Linear
    attn_proj_bias: Tensor
    ln_2: Norm
    mlp_fc: Linear
    mlp_proj: Linear
    mlp_proj_bias: Tensor


class Layer(nn.Module):
    """One layer's parameters on one rank; weights are [out, in]."""

    def __init__(self, geometry: Geometry, parallel_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        embedding_size = geometry.embedding_size
        query_size = geometry.local_head_count(parallel_size) * geometry.head_size
        kv_size = geometry.local_kv_head_count(parallel_size) * geometry.head_size
        inner_size = geometry.inner_size // parallel_size
        self.ln_1_weight = _empty(embedding_size, dtype=dtype)
        self.ln_1_bias = _empty(embedding_size, dtype=dtype)
        self.attn_qkv_weight = _empty(query_size + 2 * kv_size, embedding_size, dtype=dtype)
        self.attn_qkv_bias = _empty(query_size + 2 * kv_size, dtype=dtype)
        self.attn_proj_weight = _empty(embedding_size, query_size, dtype=dtype)
        self.attn_proj_bias = _empty(embedding_size, dtype=dtype)
        self.ln_2_weight = _empty(embedding_size, dtype=dtype)
        self.ln_2_bias = _empty(embedding_size, dtype=dtype)
        self.mlp_fc_weight = _empty(inner_size, embedding_size, dtype=dtype)
        self.mlp_fc_bias = _empty(inner_size, dtype=dtype)
        self.mlp_proj_weight = _empty(embedding_size, inner_size, dtype=dtype)
        self.mlp_proj_bias = _empty(embedding_size, dtype=dtype)
        self._geometry = geometry

    def pack(self) -> PackedLayer:
        """Hand the weights to the kernels, which reorder them; each is let go before the next."""
        return PackedLayer(
            ln_1=_norm(self.ln_1_weight, self.ln_1_bias, self._geometry),
            attn_qkv=pack_linear(self._take("attn_qkv_weight"), self.attn_qkv_bias),
            attn_proj=pack_linear(self._take("attn_proj_weight")),
            attn_proj_bias=self.attn_proj_bias.float(),
            ln_2=_norm(self.ln_2_weight, self.ln_2_bias, self._geometry),
            mlp_fc=pack_linear(
                self._take("mlp_fc_weight"), self.mlp_fc_bias, self._geometry.activation
            ),
            mlp_proj=pack_linear(self._take("mlp_proj_weight")),
            mlp_proj_bias=self.mlp_proj_bias.float(),
        )

    def _take(self, name: str) -> Tensor:
        weight = self.get_parameter(name)
        delattr(self, name)
        return weight.data


class SantaCoder(nn.Module):
    """What one of `parallel_size` ranks holds. Fill in the parameters, `pack`, then run."""

    def __init__(self, geometry: Geometry, parallel_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        embedding_size = geometry.embedding_size
        local_vocabulary_size = geometry.vocabulary_size // parallel_size
        self.geometry = geometry
        self.parallel_size = parallel_size
        self.dtype = dtype
        self.token_embedding = _empty(local_vocabulary_size, embedding_size, dtype=dtype)
        self.position_embedding = _empty(geometry.context_token_count, embedding_size, dtype=dtype)
        self.layers = nn.ModuleList(
            Layer(geometry, parallel_size, dtype) for _ in range(geometry.layer_count)
        )
        self.ln_f_weight = _empty(embedding_size, dtype=dtype)
        self.ln_f_bias = _empty(embedding_size, dtype=dtype)
        self._packed_layers: tuple[PackedLayer, ...] = ()
        self._head: Linear | None = None

    def pack(self) -> Linear:
        """Make ready to run, and return the head; the layers' weights leave `named_parameters`."""
        if self._head is None:
            self._packed_layers = tuple(cast(Layer, layer).pack() for layer in self.layers)
            # The embedding stays as it is too, for the look-up of its rows.
            self._head = pack_linear(self.token_embedding)
        return self._head

    def forward(self, inputs: StepInputs, cache: KVCache, parallel: Parallel) -> Tensor | None:
        """Run R rows; each writes its K and V before any attends. The residual stream is float32.

        Returns logits float32 [Q, V] of the rows to sample; None on ranks above 0, and if Q is 0.
        """
        hidden = parallel.all_reduce(self._embed(inputs.token_ids, parallel.rank))
        hidden = hidden + functional.embedding(inputs.positions, self.position_embedding).float()
        for layer, (keys, values) in zip(self._packed_layers, cache.layers, strict=True):
            query = norm_qkv(hidden, layer.ln_1, layer.attn_qkv, keys, values, inputs.places)
            context = paged_attention(query, keys, values, inputs.tiles)
            attended = parallel.all_reduce(layer.attn_proj(context))
            hidden += attended.add_(layer.attn_proj_bias)
            inner = norm_linear(hidden, layer.ln_2, layer.mlp_fc)
            transformed = parallel.all_reduce(layer.mlp_proj(inner))
            hidden += transformed.add_(layer.mlp_proj_bias)
        if not len(inputs.sample_rows):
            return None
        final_norm = _norm(self.ln_f_weight, self.ln_f_bias, self.geometry)
        logits = norm_linear(hidden[inputs.sample_rows], final_norm, self.pack())
        return parallel.gather_logits(logits)

    def _embed(self, token_ids: Tensor, rank: int) -> Tensor:
        """Rows [R, E] of the ids held here, zeros for others: the sum over the ranks is exact."""
        local_count = self.token_embedding.shape[0]
        local_ids = token_ids - rank * local_count
        elsewhere = (local_ids < 0) | (local_ids >= local_count)
        rows = functional.embedding(local_ids.masked_fill(elsewhere, 0), self.token_embedding)
        return rows.float().masked_fill(elsewhere.unsqueeze(1), 0.0)
