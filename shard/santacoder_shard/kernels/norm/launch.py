"""Layer norm on the GPU, ready to launch: in CUDA where few rows are normalized on the way."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import triton
from torch import Tensor

from santacoder_shard.kernels.norm.triton_kernel import MOMENT_WARPS, norm_rows_kernel
from santacoder_shard.kernels.norm_linear.reference import Norm


class NormRows(Protocol):
    """out [count, E] = norm of float32 rows, in the products' type."""

    def __call__(
        self, hidden: Tensor, rows: Tensor | None, norm: Norm, out: Tensor, count: int
    ) -> None:
        """hidden [R, E]; the rows that int32 [count] `rows` names, below 0 any; None: the first."""


class TritonNormRows:
    """The same on any GPU. Its sums have another order than `CudaNormRows` gives them."""

    def __init__(self, overlap: bool) -> None:
        self._overlap = overlap
        self._options: dict[str, Any] = {"launch_pdl": True} if overlap else {}

    def __call__(
        self, hidden: Tensor, rows: Tensor | None, norm: Norm, out: Tensor, count: int
    ) -> None:
        """As `NormRows` says."""
        size = hidden.shape[1]
        norm_rows_kernel[(count,)](
            hidden,
            hidden if rows is None else rows,
            norm.weight,
            norm.bias,
            out,
            norm.epsilon,
            SIZE=size,
            BLOCK=triton.next_power_of_2(size),
            GATHER=rows is not None,
            OVERLAP=self._overlap,
            num_warps=MOMENT_WARPS,
            **self._options,
        )


class CudaNormRows:
    """`rows.cu`, whose sums are those of products that normalize a few rows themselves."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        # Here, because elsewhere there may be no CUDA to import.
        from santacoder_shard.cuda_program import CudaKernel

        self._kernels = {
            gather: CudaKernel(
                "norm/rows.cu",
                "norm_rows",
                {"IN": size, "GATHER": int(gather), "BFLOAT16": int(dtype == torch.bfloat16)},
            )
            for gather in (False, True)
        }

    def __call__(
        self, hidden: Tensor, rows: Tensor | None, norm: Norm, out: Tensor, count: int
    ) -> None:
        """As `NormRows` says."""
        kernel = self._kernels[rows is not None]
        place = hidden if rows is None else rows
        kernel((count, 1, 1), 256, (hidden, place, norm.weight, norm.bias, norm.epsilon, out))
