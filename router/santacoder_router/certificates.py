"""The router's certificates, for its callers and for the ranks it calls; read anew on change.

The standard library checks the files before gRPC gets them, which would not say what is wrong.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import grpc

from santacoder_router.certificate_expiry import expiry_of
from santacoder_router.faults import Log
from santacoder_router.reloading import Reloaded, UnusableFile, read_file

SERVER_FLAGS = ("--tls-cert", "--tls-key", "--tls-client-ca")
SHARD_FLAGS = ("--shard-tls-cert", "--shard-tls-key", "--shard-tls-ca")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: a certificate chain, its key, and the CA of the other side."""

    certificate: Path
    key: Path
    ca: Path | None
    """Of a server: whoever calls must have a certificate of it. None: anybody may."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files there are."""
        return (self.certificate, self.key, *((self.ca,) if self.ca else ()))


@dataclass(frozen=True, slots=True)
class Pem:
    """What was in the files; a key never shows in a log."""

    certificate: bytes
    key: bytes
    ca: bytes | None

    def __repr__(self) -> str:
        return "Pem(...)"


def server_credentials(
    files: CertificateFiles,
    note_expiry: Callable[[datetime], None],
    log: Log,
    on_failure: Callable[[], object] = lambda: None,
) -> grpc.ServerCredentials:
    """For the public port; every new connection gets the files as they are then.

    Raises UnusableFile, but later on only logs it and goes on with the last that were good.
    """

    def read() -> grpc.ServerCertificateConfiguration:
        pem = read_pem(files, SERVER_FLAGS)
        if expiry := expiry_of(pem.certificate):
            note_expiry(expiry)
            log.info("certificate in use", expires=expiry.isoformat())
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.ca)

    configuration = Reloaded(files.paths, read, log, on_failure)
    return grpc.dynamic_ssl_server_credentials(
        configuration.get(),
        configuration.refresh,  # type: ignore[arg-type]  # None: no change, say gRPC's own docs
        require_client_authentication=bool(files.ca),
    )


def shard_credentials(
    files: CertificateFiles, log: Log, on_failure: Callable[[], object] = lambda: None
) -> Callable[[], grpc.ChannelCredentials | None]:
    """For the ranks; every new connection is to ask for them. Raises UnusableFile."""

    def read() -> grpc.ChannelCredentials:
        pem = read_pem(files, SHARD_FLAGS)
        return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)

    return Reloaded(files.paths, read, log, on_failure).get


def read_pem(files: CertificateFiles, flags: tuple[str, str, str]) -> Pem:
    """The files' content, if gRPC can use it; raises UnusableFile."""
    certificate_flag, key_flag, ca_flag = flags
    pem = Pem(
        certificate=read_file(certificate_flag, files.certificate, is_private=False),
        key=read_file(key_flag, files.key, is_private=True),
        ca=read_file(ca_flag, files.ca, is_private=False) if files.ca else None,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError):
        raise UnusableFile(
            f"{certificate_flag}, {key_flag}: no certificate and the key to it;"
            f" got {str(files.certificate)!r} and {str(files.key)!r};"
            " allowed PEM, the key without a password"
        ) from None
    if pem.ca is not None:
        try:
            context.load_verify_locations(cadata=pem.ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise UnusableFile(
                f"{ca_flag}: no certificates; got {str(files.ca)!r}; allowed PEM"
            ) from None
    return pem


def _no_password() -> NoReturn:
    # Without this the library would ask for one at the terminal.
    raise ssl.SSLError("the key has a password")
