"""Layer norm, the fused q, k, v product and the K and V write in plain torch: the specification."""

from __future__ import annotations

from torch import Tensor

from santacoder_shard.kernels.linear.choose import Linear
from santacoder_shard.kernels.norm_linear import norm_linear
from santacoder_shard.kernels.norm_linear.reference import Norm


def norm_qkv(
    hidden: Tensor, norm: Norm, linear: Linear, keys: Tensor, values: Tensor, places: Tensor
) -> Tensor:
    """Write each row's K and V and return its query heads.

    hidden: [R, E]. keys, values: one layer's cache [blocks, 16, kv_heads, head_size].
    places: int64 [R], where a row goes, block * 16 + offset; no place twice.
    The product's columns are q head-major, k, v. Returns [R, heads, head_size].
    """
    row_count = hidden.shape[0]
    kv_head_count, head_size = keys.shape[2:]
    kv_size = kv_head_count * head_size
    fused = norm_linear(hidden, norm, linear)
    query_size = fused.shape[1] - 2 * kv_size
    key, value = fused[:, query_size:-kv_size], fused[:, -kv_size:]
    keys.view(-1, kv_size).index_copy_(0, places, key.to(keys.dtype))
    values.view(-1, kv_size).index_copy_(0, places, value.to(values.dtype))
    return fused[:, :query_size].reshape(row_count, -1, head_size)
