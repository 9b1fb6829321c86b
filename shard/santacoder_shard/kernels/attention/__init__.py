"""Attention of query rows over a paged KV cache."""

from santacoder_shard.kernels.attention.reference import paged_attention

__all__ = ["paged_attention"]
