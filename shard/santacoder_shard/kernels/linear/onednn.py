"""The product on oneDNN, its weight put once into the order that the kernels read. float32, CPU.

What was tried (torch 2.13; Zen 4 with AVX-512, and AVX2 forced; 1 and 2 threads), for a weight of
67 MB that comes from memory, one thread: with AVX-512 1, 2, 4, 6, 8 and 16 rows take 4.4, 4.9, 3.0,
2.9, 4.3 and 6.0 ms, and 1 row has other bits than 2 to 512 rows: hence at least 4 rows. With AVX2
all counts have the same bits, and the time grows with them from 1 on. Torch's F.linear takes 3.4 ms
for 1 row and 8.4 for 8. The head read where the embedding lies, unpacked, takes 29 ms for 4 rows
and 36 for 8, packed 18 and 25: worth its second copy. The count that packing is told changes
nothing. The operators are private to torch: `is_available` asks for them, a test pins their bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from santacoder_shard.kernels.linear.reference import LinearActivation

_PACKED_FOR_ROW_COUNT = 8
_POINTWISE = {
    "none": ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu_erf": ("gelu", "none"),
}


def is_available(weight: Tensor) -> bool:
    """Whether this build of torch has the operators and they take this weight."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class OnednnLinear:
    """weight [out, in], bias [out] or none; holds the weight in another order."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, activation: LinearActivation = "none"
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROW_COUNT)
        self._bias = bias
        self._least_row_count = 1 if torch.backends.cpu.get_cpu_capability() == "AVX2" else 4
        self.name = f"onednn-{self._least_row_count}"
        self._pointwise, self._algorithm = _POINTWISE[activation]

    def __call__(self, rows: Tensor) -> Tensor:
        """rows [R, in] -> [R, out], R >= 1."""
        row_count = rows.shape[0]
        if row_count < self._least_row_count:
            rows = functional.pad(rows, (0, 0, 0, self._least_row_count - row_count))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, self._pointwise, [], self._algorithm
        )
        return product[:row_count]
