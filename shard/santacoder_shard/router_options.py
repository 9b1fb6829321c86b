"""santacoder-serve's options that are the router's: handed on as they are, and checked there.

Only what must be known before a model is fetched is refused here. Knows no process.
"""

from __future__ import annotations

import argparse

from santacoder_shard.arguments import absolute_path, is_loopback, whole_number

FILES = {
    "--tls-cert": "certificate chain of the public port, PEM",
    "--tls-key": "its key, PEM, mode 0600",
    "--tls-client-ca": "clients must have a certificate of this CA (mTLS)",
    "--token-file": "who may call what: NAME SHA256 RIGHT[,RIGHT] [EXPIRES] [LIMIT=VALUE ...]",
}
BOUNDS = {
    "--queue-requests": "most sequences that wait (512)",
    "--queue-tokens": "most prompt tokens that wait (262144)",
    "--queue-wait-seconds": "longest wait in the queue (10)",
    "--stream-stall-seconds": "how long a reader may take nothing of what waits for it (30)",
    "--memory-limit-bytes": "what the router may hold (its control group's limit)",
    "--caller-running": "most sequences of one caller that run at once (64)",
    "--caller-queued": "most of its sequences that wait (128)",
    "--caller-queued-tokens": "most of its prompt tokens that wait (65536)",
    "--caller-sessions": "most of its open editor sessions (64)",
    "--caller-rate": "most of its requests a second (100)",
}
NUMBERS = {
    "--max-connections": ("N", "most connections of callers at once (1024)"),
    "--session-idle-seconds": ("SECONDS", "an idle session of a caller is closed after that (60)"),
}


def add_router_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it listens, and who may call."""
    port = whole_number(0, 65535)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (loopback)")
    parser.add_argument("--port", type=port, default=50051, help="0 takes a free one")
    parser.add_argument("--metrics-port", type=port, help="for Prometheus, on loopback")
    parser.add_argument("--otlp-endpoint", metavar="URL", help="collector of traces, OTLP (none)")
    for flag, text in FILES.items():
        parser.add_argument(flag, type=absolute_path, metavar="FILE", help=text)
    for flag, (name, text) in NUMBERS.items():
        parser.add_argument(flag, metavar=name, help=text)
    parser.add_argument(
        "--insecure-allow-remote",
        action="store_true",
        help="listen for other machines without TLS or without knowing who calls",
    )
    group = parser.add_argument_group(
        "overload",
        "what is above these is refused at once, with a time to come back. A caller is a token's or"
        " certificate's name; where nobody is asked, only what is given here limits a connection",
    )
    for flag, text in BOUNDS.items():
        group.add_argument(flag, metavar="N", help=text)


def refusal_of(options: argparse.Namespace) -> str:
    """Why the service must not listen there, in one line; empty if it may."""
    is_known = options.token_file is not None or options.tls_client_ca is not None
    is_encrypted = options.tls_cert is not None and options.tls_key is not None
    if is_loopback(options.host) or (is_encrypted and is_known) or options.insecure_allow_remote:
        return ""
    return (
        f"--host: open to other machines; got {options.host}; allowed 127.0.0.1, ::1, localhost,"
        " others with --tls-cert, --tls-key and either --token-file or --tls-client-ca"
        " (or with --insecure-allow-remote)"
    )


def router_arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """The arguments from which the router reads them."""
    flags = (*FILES, *BOUNDS, *NUMBERS)
    given = {flag: getattr(options, flag[2:].replace("-", "_")) for flag in flags}
    values = {
        "--host": options.host,
        "--port": options.port,
        "--log-level": options.log_level,
        "--metrics-port": options.metrics_port,
        "--otlp-endpoint": options.otlp_endpoint,
        **given,
    }
    arguments = [f"{flag}={value}" for flag, value in values.items() if value is not None]
    if options.insecure_allow_remote:
        arguments.append("--insecure-allow-remote")
    return tuple(arguments)
