"""Reads addresses: where a target is, and whether it can leave this machine. Connects to none."""

from __future__ import annotations

import ipaddress


def host_and_port(address: str) -> tuple[str, str]:
    """Both parts of HOST:PORT or [IPV6]:PORT, empty where it is neither."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    # A colon is left only where an IPv6 address came without its brackets, or a scheme in front.
    return ("", "") if ":" in host else (host, port)


def is_loopback(address: str) -> bool:
    """Whether an address cannot leave this machine."""
    if address.startswith("unix:"):
        return True
    host = host_and_port(address)[0]
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name may mean anything, and tomorrow something else
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
