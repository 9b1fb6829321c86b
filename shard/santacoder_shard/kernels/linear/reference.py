"""The product activation(x W^T + b) in plain torch: the specification, for want of oneDNN the path.

A row's bits must not depend on the number of rows, and matrix libraries add in an order of their
own choice: MKL's differs between 8 rows and 72 on Intel's AVX-512, and with AVX2 with the place of
a row among 8 or 32. So each row is multiplied by itself: a library that sees one row cannot tell
how many there are. Prompts pay for it: 70 rows take ten times as long as in one product.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LinearActivation = Literal["none", "gelu_tanh", "gelu_erf"]


class ReferenceLinear:
    """weight [out, in], bias [out] or none; keeps the weight as it is given."""

    name = "torch-1"

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, activation: LinearActivation = "none"
    ) -> None:
        self._weight = weight
        self._bias = bias
        self._activation = activation

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [R, in] -> [R, out], R >= 1."""
        product = torch.stack([functional.linear(row, self._weight, self._bias) for row in rows])
        if self._activation == "none":
            return product
        approximate = "tanh" if self._activation == "gelu_tanh" else "none"
        return functional.gelu(product, approximate=approximate)
