"""Says in plain words why a connection did not come about, from what gRPC says of it."""

from __future__ import annotations

_CAUSES = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not of a CA that is trusted here",
    "Hostname Verification Check failed": "the server's certificate has another name",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS",
    "Socket closed": "the server closed it; it may want TLS, or a certificate of this client",
}
_FAILED = "failed to connect to all addresses"
_NO_CONNECTION = "no connection: "
_UNRESOLVED = "DNS resolution failed"


def in_plain_words(details: str) -> str:
    """The cause if it is one of encryption, otherwise what gRPC says."""
    if not details.startswith(_FAILED):
        return details
    for mark, cause in _CAUSES.items():
        if mark in details:
            return f"{_NO_CONNECTION}{cause}"
    return details


def was_connected(message: str) -> bool:
    """Whether a call that failed as UNAVAILABLE had a connection; gRPC has one code for both.

    Only how long to try again is made to depend on it: with other words of gRPC's it is longer.
    """
    return not message.startswith((_FAILED, _NO_CONNECTION, _UNRESOLVED))
