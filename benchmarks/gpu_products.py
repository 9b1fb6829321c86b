"""All products of a step, one behind the other: by the engine's kernels, and by NVIDIA's library.

The one file here that knows how the engine's kernels are called.
"""

from __future__ import annotations

from typing import cast

import torch
from gpu_job import Job
from torch.nn import functional

from santacoder_shard.kernels.linear.launch import CachePlaces, Rows
from santacoder_shard.model import Layer

LIBRARIES = ("cublas", "cublaslt")


class Products:
    """The weights of all layers and the head, so that none is found in the L2 cache."""

    def __init__(self, job: Job) -> None:
        engine = job.engine
        self._kernels, self._buffers = engine._graphs._model, engine._buffers
        self._model = self._kernels._model
        # Zeros would draw less power. What is summed up here is never read.
        self._buffers.normal.normal_()
        self._buffers.context.normal_()
        self._buffers.places.fill_(-1)
        torch.cuda.synchronize()

    def ours(self, row_count: int, head_row_count: int) -> None:
        """The engine's own, with whatever is fused behind them."""
        buffers = self._buffers
        normal, context = Rows(buffers.normal, row_count), Rows(buffers.context, row_count)
        for layer in self._kernels._layers:
            layer.qkv(normal, buffers.query, CachePlaces(layer.keys, layer.values, buffers.places))
            layer.attn_proj(context, buffers.hidden)
            layer.mlp_fc(normal, buffers.inner)
            layer.mlp_proj(Rows(buffers.inner, row_count), buffers.hidden)
        self._kernels._head(Rows(buffers.normal, head_row_count), buffers.logits)

    def library(self, row_count: int, head_row_count: int) -> None:
        """The library's, as it likes; with bias, without anything else behind them."""
        normal = self._buffers.normal[:row_count]
        context = self._buffers.context[:row_count]
        for module in self._model.layers:
            layer = cast(Layer, module)
            functional.linear(normal, layer.attn_qkv_weight, layer.attn_qkv_bias)
            functional.linear(context, layer.attn_proj_weight, layer.attn_proj_bias)
            inner = functional.linear(normal, layer.mlp_fc_weight, layer.mlp_fc_bias)
            functional.linear(inner, layer.mlp_proj_weight, layer.mlp_proj_bias)
        functional.linear(normal[:head_row_count], self._model.token_embedding)


def use_library(name: str) -> None:
    """Let torch's products run on this library."""
    torch.backends.cuda.preferred_blas_library(name)
