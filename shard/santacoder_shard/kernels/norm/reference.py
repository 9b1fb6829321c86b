"""Layer norm of rows in plain torch: the specification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from santacoder_shard.kernels.norm_linear.reference import Norm


def norm_rows(hidden: Tensor, norm: Norm) -> Tensor:
    """hidden [R, E] float32 -> its layer norm [R, E] float32."""
    size = (hidden.shape[-1],)
    return functional.layer_norm(hidden, size, norm.weight, norm.bias, norm.epsilon)
