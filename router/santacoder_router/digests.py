"""Compares what ranks say they received and sampled. Pure; a digest is opaque bytes to it."""

from __future__ import annotations

Point = str


class Divergence(Exception):
    """Two ranks gave different digests for the same point of the same plan."""


class DigestLedger:
    """Holds digests of plans that not every rank has ended yet; forgets a plan when all have."""

    def __init__(self, rank_count: int) -> None:
        self._rank_count = rank_count
        self._digests: dict[int, dict[Point, tuple[int, bytes]]] = {}
        self._ended_count: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def accepted(self, rank: int, plan_number: int, digest: bytes) -> None:
        """A rank has received a plan; raises Divergence."""
        self._compare(rank, plan_number, "frames received", digest)

    def ran(self, rank: int, plan_number: int, end_step: int, final: bool, digest: bytes) -> None:
        """A rank has run a plan's steps before `end_step`; raises Divergence."""
        if self._rank_count == 1:
            return
        self._compare(rank, plan_number, f"ids up to step {end_step}", digest)
        if final:
            self._compare(rank, plan_number, "number of steps run", str(end_step).encode())
            ended_count = self._ended_count.get(plan_number, 0) + 1
            self._ended_count[plan_number] = ended_count
            if ended_count == self._rank_count:
                del self._ended_count[plan_number], self._digests[plan_number]

    def _compare(self, rank: int, plan_number: int, point: Point, digest: bytes) -> None:
        known = self._digests.setdefault(plan_number, {})
        first_rank, first = known.setdefault(point, (rank, digest))
        if first != digest:
            raise Divergence(
                f"plan {plan_number}, {point}: rank {rank} differs from rank {first_rank}"
            )
