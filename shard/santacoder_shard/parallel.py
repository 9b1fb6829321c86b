"""What the ranks of a tensor-parallel group say to each other; it knows tensors, not the model.

Sums are written out, in one order: the order in which a library's all-reduce adds depends on where
an element lies, and so on how many rows the tensor has.
"""

from __future__ import annotations

import os
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
        cls,
        rank: int,
        size: int,
        rendezvous: Path,
        timeout_seconds: float = 10.0,
        device: torch.device | None = None,
    ) -> Parallel:
        """Wait for the other ranks at the file `rendezvous`: one path, new, and the same for all.

        Connections stay on loopback. A collective that outlasts `timeout_seconds`, or whose peer is
        gone, raises RuntimeError. On a GPU, `device`, ranks meet over NCCL, else over gloo.
        """
        if size == 1:
            return cls()
        timeout = timedelta(seconds=timeout_seconds)
        distributed: Any = torch.distributed
        store = distributed.FileStore(str(rendezvous), size)
        store.set_timeout(timeout)
        if device is not None and device.type == "cuda":
            return cls(rank, size, _nccl(store, rank, size, timeout))
        return cls(rank, size, _gloo(store, rank, size, timeout))

    def least(self, value: int, device: torch.device) -> int:
        """The smallest of the ranks' values."""
        own = torch.tensor([value], dtype=torch.int64, device=device)
        values = own.new_empty(self.size, 1)
        self.gather_into(values, own)
        return int(values.min())

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

    def gather_into(self, parts: Tensor, part: Tensor) -> None:
        """Every rank's `part` into `parts` [size, *part], on every rank; NCCL can capture it."""
        if self._group is None:
            parts[0].copy_(part)
            return
        self._group._allgather_base(parts.flatten(0, 1), part).wait()

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


def _gloo(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    # The group is made by hand: by name, gloo listens on the address of the host's name.
    gloo: Any = torch.distributed.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname="127.0.0.1")]
    return gloo(store, rank, size, options)


def _nccl(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    # Ranks are on one host: what they arrange before they use its links stays on loopback.
    # Multicast over NVLink gains little for exchanges this small, and is not set up everywhere.
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    nccl: Any = torch.distributed.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = timeout
    return nccl(store, rank, size, options)
