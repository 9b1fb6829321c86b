"""The shape of a SantaCoder model: sizes and the activation; knows no files, tensors or devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu_tanh", "gelu_erf"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of the whole model, whatever the tensor-parallel size."""

    layer_count: int
    head_count: int
    kv_head_count: int
    """1 (multi-query) or head_count (multi-head)."""
    head_size: int
    embedding_size: int
    inner_size: int
    context_token_count: int
    """Positions the model has: rows of the position embedding."""
    vocabulary_size: int
    """Rows of the token embedding, padding included."""
    layer_norm_epsilon: float
    activation: Activation

    @property
    def is_multi_query(self) -> bool:
        """Whether all query heads share one K and V head, whole on every rank."""
        return self.kv_head_count == 1 and self.head_count > 1

    def local_head_count(self, parallel_size: int) -> int:
        """Query heads on one of `parallel_size` ranks."""
        return self.head_count // parallel_size

    def local_kv_head_count(self, parallel_size: int) -> int:
        """K and V heads on one of `parallel_size` ranks: a single head is whole on each."""
        return self.kv_head_count if self.is_multi_query else self.kv_head_count // parallel_size

    def refusal(self, parallel_size: int) -> str | None:
        """Why this model cannot be cut into `parallel_size` ranks, in one line; None if it can."""
        for name, count in (
            ("attention heads", self.head_count),
            ("inner size", self.inner_size),
            ("vocabulary size", self.vocabulary_size),
        ):
            if parallel_size < 1 or count % parallel_size:
                return f"tp: must divide the model's {name} ({count}); got {parallel_size}"
        return None
