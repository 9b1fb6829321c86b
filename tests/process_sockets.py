"""The sockets of a process, as Linux tells them in /proc."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from pathlib import Path

TCP_LISTEN = "0A"
ACCEPTS_CONNECTIONS = 0x10000
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def socket_inodes(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if name.startswith("socket:["):
            inodes.add(name.removeprefix("socket:[").removesuffix("]"))
    return inodes


def address(hexadecimal: str) -> tuple[IPAddress, int]:
    """Host and port of /proc/net/tcp's notation: words of 32 bits, in this machine's order."""
    host, port = hexadecimal.split(":")
    words = [int(host[start : start + 8], 16) for start in range(0, len(host), 8)]
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found, int(port, 16)


def internet_sockets(pid: int) -> list[tuple[str, IPAddress, int]]:
    """State, host and port of every TCP and UDP socket of a process; UDP has no listeners."""
    owned = socket_inodes(pid)
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in owned:
                found.append((fields[3], *address(fields[1])))
    return found


def unix_listeners(pid: int) -> list[str]:
    """Where a process listens on Unix sockets; what has no path begins with @, or is empty."""
    owned = socket_inodes(pid)
    found = []
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if fields[6] in owned and int(fields[3], 16) & ACCEPTS_CONNECTIONS:
            found.append(fields[7] if len(fields) > 7 else "")
    return found


def free_port() -> int:
    """A port of loopback that nobody listens on, for a server that comes back to it."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port: int = holder.getsockname()[1]
        return port
