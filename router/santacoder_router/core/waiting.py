"""The queue of sequences that want a slot. Knows their order, not why they wait."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from santacoder_router.core.sequence import Sequence


class WaitingQueue:
    """Sequences in the order in which they get slots; nobody overtakes the head."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self.token_count = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._sequences

    @property
    def head(self) -> Sequence | None:
        """The next to get a slot."""
        return self._sequences[0] if self._sequences else None

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence in its place."""
        insort(self._sequences, sequence, key=_place)
        self.token_count += sequence.token_count

    def add_all(self, sequences: Iterable[Sequence]) -> None:
        """Puts each in its place."""
        for sequence in sequences:
            self.add(sequence)

    def take_all(self) -> list[Sequence]:
        """Empties the queue."""
        sequences, self._sequences = self._sequences, []
        self.token_count = 0
        return sequences

    def remove(self, sequence: Sequence) -> None:
        """Takes out a sequence that is in the queue."""
        self._sequences.remove(sequence)
        self.token_count -= sequence.token_count


def _place(sequence: Sequence) -> tuple[bool, tuple[float, int]]:
    return (not sequence.is_restored, sequence.order)
