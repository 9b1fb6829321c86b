"""What an encrypted connection is made of, checked before gRPC gets it. Opens no connection.

There is no way to encrypt without checking the server's certificate.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """An encrypted connection, for `Client(target, tls=TLS(...))`; `tls=True` is `TLS()`.

    Example:
        >>> Client("gpu-host:50051", tls=TLS(ca="ca.pem"), token=os.environ["SANTACODER_TOKEN"])
    """

    ca: StrPath | None = None
    """Certificates to trust, PEM; None is those that gRPC comes with."""
    cert: StrPath | None = None
    """This client's own certificate, for servers that want one; with `key`."""
    key: StrPath | None = None
    """The key to it."""
    server_name: str | None = None
    """The name to find in the server's certificate, where it is not the target's."""


def tls_of(tls: TLS | bool) -> TLS | None:
    """What `tls=` means."""
    if isinstance(tls, TLS):
        return tls
    return TLS() if tls else None


def server_name_option(tls: TLS) -> list[tuple[str, str]]:
    """gRPC's option for a certificate with another name than the target's."""
    return [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []


def credentials_of(tls: TLS, prefix: str = "tls.") -> grpc.ChannelCredentials:
    """What gRPC needs, checked; raises ValueError that names the part by `prefix`."""
    if (tls.cert is None) != (tls.key is None):
        raise ValueError(f"{prefix}cert: needs {prefix}key; got one; allowed both or none")
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read_file(f"{prefix}ca", tls.ca),
        private_key=read_file(f"{prefix}key", tls.key),
        certificate_chain=read_file(f"{prefix}cert", tls.cert),
    )
    _check(tls, prefix)
    return credentials


def _check(tls: TLS, prefix: str) -> None:
    # gRPC takes anything, and then every call fails without a reason.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is not None:
        try:
            context.load_verify_locations(tls.ca)
        except (ssl.SSLError, OSError):
            raise ValueError(
                f"{prefix}ca: no certificates; got {os.fspath(tls.ca)!r}; allowed PEM"
            ) from None
    if tls.cert is not None and tls.key is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
        except (ssl.SSLError, OSError):
            raise ValueError(
                f"{prefix}cert, {prefix}key: no certificate and the key to it;"
                f" got {os.fspath(tls.cert)!r} and {os.fspath(tls.key)!r};"
                " allowed PEM, the key without a password"
            ) from None


def _no_password() -> NoReturn:
    # Without this the library would ask for one at the terminal.
    raise ssl.SSLError("the key has a password")


def read_file(name: str, path: StrPath | None) -> bytes | None:
    """A file's bytes, None without a path; raises ValueError that calls the path by `name`."""
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        got = os.fspath(path)
        raise ValueError(f"{name}: {reason}; got {got!r}; allowed a readable file") from None
