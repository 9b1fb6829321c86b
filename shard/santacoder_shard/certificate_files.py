"""Which files a rank's TLS is made of. Opens none and needs no gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FLAGS = ("--tls-cert", "--tls-key", "--tls-client-ca")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: a certificate chain, its key, and the CA of whoever may call."""

    certificate: Path
    key: Path
    client_ca: Path

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """In the order of FLAGS."""
        return (self.certificate, self.key, self.client_ca)
