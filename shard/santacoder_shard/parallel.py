"""What the ranks of a tensor-parallel group say to each other; it knows tensors, not the model.

Sums are written out, in one order: the order in which a library's all-reduce adds depends on where
an element lies, and so on how many rows the tensor has.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Parallel:
    """One rank of `size`. Without a group it is the only one, and nothing is sent."""

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._group = group

    @classmethod
    def join(
        cls, rank: int, size: int, rendezvous: Path, timeout_seconds: float = 10.0
    ) -> Parallel:
        """Wait for the other ranks at the file `rendezvous`: one path, new, and the same for all.

        Connections stay on loopback. A collective that outlasts `timeout_seconds`, or whose peer is
        gone, raises RuntimeError.
        """
        if size == 1:
            return cls()
        # The group is made by hand: by name, gloo listens on the address of the host's name.
        distributed: Any = torch.distributed
        gloo = distributed.ProcessGroupGloo
        options = gloo._Options()
        options._timeout = timedelta(seconds=timeout_seconds)
        options._devices = [gloo.create_device(hostname="127.0.0.1")]
        store = distributed.FileStore(str(rendezvous), size)
        store.set_timeout(timedelta(seconds=timeout_seconds))
        return cls(rank, size, gloo(store, rank, size, options))

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, as a balanced binary tree in rank order; equal bits on all."""
        if self._group is None:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._group.allgather([parts], [tensor.contiguous()]).wait()
        while len(parts) > 1:
            pairs = [left.add_(right) for left, right in zip(parts[::2], parts[1::2], strict=False)]
            parts = pairs + parts[2 * len(pairs) :]
        return parts[0]

    def gather_logits(self, logits: Tensor) -> Tensor | None:
        """Every rank's [R, V_local] side by side, [R, V], on rank 0; None elsewhere."""
        if self._group is None:
            return logits
        parts = [torch.empty_like(logits) for _ in range(self.size)] if self.rank == 0 else []
        self._group.gather([parts] if parts else [], [logits.contiguous()]).wait()
        return torch.cat(parts, dim=1) if parts else None

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor on every rank; the others' own, of the same shape, is overwritten."""
        if self._group is not None:
            self._group.broadcast([tensor]).wait()
        return tensor
