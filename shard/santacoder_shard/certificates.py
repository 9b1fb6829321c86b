"""A rank's certificate for HOST:PORT, and who may call: the router's certificate and no other.

Files are read anew when they change, for the next connection. The standard library checks them
before gRPC gets them, which would not say what is wrong.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import NoReturn

import grpc

from santacoder_shard.certificate_files import FLAGS, CertificateFiles
from santacoder_shard.errors import UnusableOption
from santacoder_shard.log import Logger

ROUTER_NAME = "router.santacoder.internal"
MOST_FILE_BYTES = 1 << 20

Signature = tuple[tuple[int, int, int] | None, ...]


def server_credentials(files: CertificateFiles, log: Logger) -> grpc.ServerCredentials:
    """For the rank's port; a client must have a certificate. Raises UnusableOption."""
    return grpc.dynamic_ssl_server_credentials(
        _read(files),
        _Fetcher(files, log),  # type: ignore[arg-type]  # None: no change, say gRPC's own docs
        require_client_authentication=True,
    )


class _Fetcher:
    """Called by gRPC before every handshake: the new configuration, None if it is the old one."""

    def __init__(self, files: CertificateFiles, log: Logger) -> None:
        self._files = files
        self._log = log
        self._signature = _sign(files)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        signature = _sign(self._files)
        if signature == self._signature:
            return None
        self._signature = signature
        try:
            configuration = _read(self._files)
        except UnusableOption as error:
            # Whoever replaces a certificate and its key does so one after the other.
            self._log.error("changed files cannot be used; the old stay", error=str(error))
            return None
        self._log.info("certificates reloaded")
        return configuration


def _sign(files: CertificateFiles) -> Signature:
    return tuple(_sign_one(path) for path in files.paths)


def _sign_one(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_ino, state.st_size, state.st_mtime_ns)


def _read(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    certificate, key, client_ca = (
        _content(flag, path) for flag, path in zip(FLAGS, files.paths, strict=True)
    )
    mode = files.key.stat().st_mode & 0o777
    if mode & 0o077:
        raise UnusableOption(
            f"--tls-key: open to other users; got {str(files.key)!r} with mode {mode:04o};"
            " allowed 0600"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError):
        raise UnusableOption(
            f"--tls-cert, --tls-key: no certificate and the key to it;"
            f" got {str(files.certificate)!r} and {str(files.key)!r};"
            " allowed PEM, the key without a password"
        ) from None
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise UnusableOption(
            f"--tls-client-ca: no certificates; got {str(files.client_ca)!r}; allowed PEM"
        ) from None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def _content(flag: str, path: Path) -> bytes:
    try:
        # A pipe that nobody writes to would be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read(MOST_FILE_BYTES)
    except OSError as error:
        raise UnusableOption(f"{flag}: {error.strerror}; got {str(path)!r}") from None
    raise UnusableOption(f"{flag}: not a regular file; got {str(path)!r}")


def _no_password() -> NoReturn:
    # Without this the library would ask for one at the terminal.
    raise ssl.SSLError("the key has a password")
