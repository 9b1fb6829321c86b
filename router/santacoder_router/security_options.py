"""The router's options on who may listen in and who may call, and what must not go together.

Looks into no file; a combination that would open a door is refused here.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from santacoder_router.certificates import SERVER_FLAGS, SHARD_FLAGS, CertificateFiles

LOOPBACK = "127.0.0.1, ::1, localhost"


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Paths of secrets, never the secrets."""

    tls: CertificateFiles | None = None
    """The public port's; None is plaintext."""
    token_file: Path | None = None
    """Who may call what; None lets everybody call everything."""
    shard_tls: CertificateFiles | None = None
    """For shards at HOST:PORT; None is plaintext."""
    is_open: bool = False
    """Other machines may come in without encryption or without saying who they are."""

    @property
    def asks_certificates(self) -> bool:
        """Whether clients have a certificate, and are known by it."""
        return self.tls is not None and self.tls.ca is not None


class UnsafeOptions(Exception):
    """Options that open a door; the message is one line."""


def add_security_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of SecurityConfig."""
    group = parser.add_argument_group(
        "security", "files are read anew when they change; secrets must be of mode 0600"
    )
    add = group.add_argument
    for flag, text in (
        ("--tls-cert", "certificate chain of the public port, PEM"),
        ("--tls-key", "its key, PEM"),
        ("--tls-client-ca", "clients must have a certificate of this CA (mTLS)"),
        (
            "--token-file",
            "who may call what: a line has NAME SHA256 RIGHT[,RIGHT] [EXPIRES] [LIMIT=VALUE ...]",
        ),
        ("--shard-tls-cert", "certificate of router.santacoder.internal, for shards at HOST:PORT"),
        ("--shard-tls-key", "its key"),
        ("--shard-tls-ca", "CA of the shards' certificates, shard-RANK.santacoder.internal"),
    ):
        add(flag, type=Path, metavar="FILE", help=text)
    add(
        "--insecure-allow-remote",
        action="store_true",
        help="listen for other machines without TLS or without knowing who calls",
    )


def security_of(options: argparse.Namespace) -> SecurityConfig:
    """What `add_security_arguments` has read; raises UnsafeOptions."""
    config = SecurityConfig(
        tls=_files(SERVER_FLAGS, (options.tls_cert, options.tls_key, options.tls_client_ca), 2),
        token_file=options.token_file,
        shard_tls=_files(
            SHARD_FLAGS, (options.shard_tls_cert, options.shard_tls_key, options.shard_tls_ca), 3
        ),
    )
    is_open = check_host(options.host, config, options.insecure_allow_remote)
    check_shards(options.shards, config)
    return SecurityConfig(config.tls, config.token_file, config.shard_tls, is_open)


def check_host(host: str, config: SecurityConfig, is_allowed: bool) -> bool:
    """Whether the door is open to other machines; raises UnsafeOptions unless `is_allowed`."""
    is_known = config.token_file is not None or (config.tls is not None and config.tls.ca)
    if is_loopback(host) or (config.tls is not None and is_known):
        return False
    if not is_allowed:
        raise UnsafeOptions(
            f"--host: open to other machines; got {host}; allowed {LOOPBACK}, others with"
            " --tls-cert, --tls-key and either --token-file or --tls-client-ca"
            " (or with --insecure-allow-remote)"
        )
    return True


def check_shards(addresses: Sequence[str], config: SecurityConfig) -> None:
    """Raises UnsafeOptions if plans would leave the machine unencrypted, or TLS meets a socket."""
    for address in addresses:
        is_socket = address.startswith("unix:")
        if config.shard_tls is not None and is_socket:
            raise UnsafeOptions(f"--shard-tls-cert: for HOST:PORT; got the shard {address}")
        host = address.rpartition(":")[0].strip("[]")
        if config.shard_tls is None and not is_socket and not is_loopback(host):
            raise UnsafeOptions(
                f"--shards: on another machine; got {address}; allowed unix:PATH, {LOOPBACK},"
                f" others with {', '.join(SHARD_FLAGS)}"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _files(
    flags: tuple[str, str, str], paths: tuple[Path | None, Path | None, Path | None], least: int
) -> CertificateFiles | None:
    """The files if the first `least` of them are given, None if none is; raises UnsafeOptions."""
    certificate, key, ca = paths
    if not any(paths):
        return None
    if certificate is None or key is None or (ca is None and least == len(flags)):
        missing = next(flag for flag, path in zip(flags, paths, strict=True) if path is None)
        others = ", ".join(flags[:least])
        raise UnsafeOptions(f"{missing}: missing; allowed {others} together or none of them")
    return CertificateFiles(certificate, key, ca)
