"""The product activation(x W^T + b) in plain torch: the specification, for want of oneDNN the path.

A row's bits must not depend on the number of rows, and matrix libraries add in another order for
few rows. So rows are padded to a multiple of 8, from where on the order stays the same.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

LinearActivation = Literal["none", "gelu_tanh", "gelu_erf"]

_ROW_MULTIPLE = 8


class ReferenceLinear:
    """weight [out, in], bias [out] or none; keeps the weight as it is given."""

    name = "torch-8"

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, activation: LinearActivation = "none"
    ) -> None:
        self._weight = weight
        self._bias = bias
        self._activation = activation

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [R, in] -> [R, out], R >= 1."""
        row_count = rows.shape[0]
        padded = functional.pad(rows, (0, 0, 0, -row_count % _ROW_MULTIPLE))
        product = functional.linear(padded, self._weight, self._bias)[:row_count]
        if self._activation == "none":
            return product
        approximate = "tanh" if self._activation == "gelu_tanh" else "none"
        return functional.gelu(product, approximate=approximate)
