"""Options on how a server is spoken to, the same for both commands. Knows no target."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from santacoder_client._security import check_token, read_token
from santacoder_client._tls import TLS, credentials_of

TOKEN_VARIABLE = "SANTACODER_TOKEN"
_PARTS = {
    "--tls-ca": "certificates to trust, PEM (gRPC's own)",
    "--tls-cert": "this client's certificate, PEM",
    "--tls-key": "its key, PEM",
}


def add_security_arguments(group: argparse._ActionsContainer, **default: Any) -> None:
    """`default=argparse.SUPPRESS` keeps what stood before a command."""
    absent = {"default": None, **default}
    group.add_argument("--tls", action="store_true", help="encrypt", **default)
    for flag, text in _PARTS.items():
        group.add_argument(flag, type=Path, metavar="F", help=text, **absent)
    group.add_argument(
        "--tls-server-name", metavar="NAME", help="the name in the server's certificate", **absent
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="F",
        help=f"a file with the token that says who calls (default: ${TOKEN_VARIABLE})",
        **absent,
    )
    group.add_argument(
        "--allow-plain-token",
        action="store_true",
        help="send the token to another machine without encryption",
        **default,
    )


def tls_of_arguments(arguments: argparse.Namespace) -> TLS | None:
    """The certificates, checked. Raises ValueError that names the flag."""
    tls = TLS(
        ca=arguments.tls_ca,
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        server_name=arguments.tls_server_name,
    )
    if arguments.tls:
        credentials_of(tls, "--tls-")
        return tls
    if tls != TLS():
        raise ValueError("--tls: missing; got a certificate or a name; allowed with --tls")
    return None


def token_of_arguments(arguments: argparse.Namespace, environment: str | None) -> str | None:
    """The token of the file, or else that of the environment. Raises ValueError."""
    if arguments.token_file is not None:
        return read_token("--token-file", arguments.token_file)
    return check_token(f"${TOKEN_VARIABLE}", environment) if environment else None
