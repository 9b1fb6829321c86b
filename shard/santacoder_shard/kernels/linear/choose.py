"""Chooses, once and when the weights are packed, what computes a product; knows no model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from santacoder_shard.kernels.linear.onednn import OnednnLinear, is_available
from santacoder_shard.kernels.linear.reference import LinearActivation, ReferenceLinear


class Linear(Protocol):
    """y = activation(x W^T + b); a row of the result has the same bits whatever the other rows."""

    name: str

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [R, in] -> [R, out], R >= 1."""


def pack_linear(
    weight: Tensor, bias: Tensor | None = None, activation: LinearActivation = "none"
) -> Linear:
    """Make the product of weight [out, in] and bias [out].

    The weight may be copied into another order, so a caller without other use for it lets it go.
    Half precision is widened: a CPU computes in float32.
    """
    with torch.no_grad():
        wide, wide_bias = weight.float(), None if bias is None else bias.float()
        if is_available(wide):
            return OnednnLinear(wide, wide_bias, activation)
        return ReferenceLinear(wide, wide_bias, activation)
