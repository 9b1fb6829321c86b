"""How often addresses call without a good token: from when on that is too often, and worth a line.

Pure: the time is handed in. The table holds so many addresses and no more, whoever calls.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_ADDRESSES = 256
WINDOW_SECONDS = 10.0
MOST_CALLS = 100
LINE_SECONDS = 60.0


@dataclass(slots=True)
class Address:
    """What one address has done. Times are in seconds."""

    window_began_at: float
    call_count: int = 0
    told_at: float | None = None


class BadCalls:
    """Counts refused calls by address."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, Address] = OrderedDict()

    def note(self, name: str, now: float) -> bool:
        """One more; True if it is one too many in its window."""
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) >= MOST_ADDRESSES:
                self._addresses.popitem(last=False)
            address = self._addresses[name] = Address(now)
        self._addresses.move_to_end(name)
        if now - address.window_began_at >= WINDOW_SECONDS:
            address.window_began_at, address.call_count = now, 0
        address.call_count += 1
        return address.call_count > MOST_CALLS

    def is_worth_a_line(self, name: str, now: float) -> bool:
        """Whether the log has had no line of it for a minute; the next one is then due again."""
        address = self._addresses.get(name)
        if address is None or (
            address.told_at is not None and now - address.told_at < LINE_SECONDS
        ):
            return False
        address.told_at = now
        return True


def address_of(peer: str) -> str:
    """The machine of a gRPC peer, without the port, which every connection has anew."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
