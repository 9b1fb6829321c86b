"""Says in plain words why a connection did not come about, from what gRPC says of it."""

from __future__ import annotations

_CAUSES = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not of a CA that is trusted here",
    "Hostname Verification Check failed": "the server's certificate has another name",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS",
    "Socket closed": "the server closed it; it may want TLS, or a certificate of this client",
}
_FAILED = "failed to connect to all addresses"


def in_plain_words(details: str) -> str:
    """The cause if it is one of encryption, otherwise what gRPC says."""
    if not details.startswith(_FAILED):
        return details
    for mark, cause in _CAUSES.items():
        if mark in details:
            return f"no connection: {cause}"
    return details
