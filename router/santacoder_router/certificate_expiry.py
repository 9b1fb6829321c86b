"""When a certificate ends, read from the few bytes of DER that say so. Checks no signature."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

FIRST_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
SEQUENCE, VERSION = 0x30, 0xA0
TIME_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def expiry_of(pem: bytes) -> datetime | None:
    """The end of the first certificate in a chain; None if it is not written as usual."""
    found = FIRST_CERTIFICATE.search(pem)
    if found is None:
        return None
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")))
    except (ValueError, IndexError, KeyError):
        return None


def _not_after(der: bytes) -> datetime:
    """The path is Certificate, TBSCertificate, Validity, notAfter (RFC 5280, section 4.1)."""
    [certificate] = _children(der, SEQUENCE)
    to_be_signed = _children(certificate, SEQUENCE)[0]
    fields = [field for field in _fields(to_be_signed) if field[0] != VERSION]
    # Serial number, signature algorithm, issuer, validity.
    _, (tag, text) = _fields(fields[3][1])
    return datetime.strptime(text.decode("ascii"), TIME_FORMATS[tag]).replace(tzinfo=UTC)


def _children(content: bytes, tag: int) -> list[bytes]:
    return [value for kind, value in _fields(content) if kind == tag]


def _fields(content: bytes) -> list[tuple[int, bytes]]:
    """Tag and value of each element."""
    fields = []
    at = 0
    while at < len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(content[at : at + size], "big")
            at += size
        fields.append((tag, content[at : at + length]))
        at += length
    return fields
