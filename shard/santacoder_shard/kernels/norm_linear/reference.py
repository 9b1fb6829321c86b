"""Layer norm, then a product with its bias and activation, in plain torch: the specification."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from santacoder_shard.kernels.linear.choose import Linear


class Norm(NamedTuple):
    """A layer norm: weight [E], bias [E]."""

    weight: Tensor
    bias: Tensor
    epsilon: float


def norm_linear(hidden: Tensor, norm: Norm, linear: Linear) -> Tensor:
    """hidden [R, E] float32 -> linear(layer_norm(hidden)) [R, out]."""
    size = (hidden.shape[-1],)
    return linear(functional.layer_norm(hidden, size, norm.weight, norm.bias, norm.epsilon))
