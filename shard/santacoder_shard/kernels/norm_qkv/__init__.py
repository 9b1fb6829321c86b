"""Layer norm, query, key and value product, and the write of K and V into the cache."""

from santacoder_shard.kernels.norm_qkv.reference import norm_qkv

__all__ = ["norm_qkv"]
