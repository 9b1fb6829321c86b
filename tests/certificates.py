"""Certificates for tests of TLS, made by openssl in a test's own folder, good for a day."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
ROUTER = "router.santacoder.internal"


@dataclass(frozen=True)
class Pair:
    """A certificate and the key to it."""

    certificate: Path
    key: Path

    @property
    def expiry(self) -> datetime:
        """When it ends, as openssl says."""
        words = ("openssl", "x509", "-noout", "-enddate", "-in", str(self.certificate))
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
        time = datetime.strptime(said.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
        return time.replace(tzinfo=UTC)


class Authority:
    """A CA of its own: nobody else trusts it. Where openssl 3 is not installed, the test skips."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._folder = folder
        subject = ("-subj", f"/CN={name}", "-days", "1", "-x509")
        _openssl("req", *CURVE, *subject, "-keyout", self._key, "-out", self.ca)

    def issue(self, *names: str, file_name: str = "") -> Pair:
        """A certificate for DNS names, or 127.0.0.1 where it says so."""
        stem = self._folder / (file_name or names[0])
        pair = Pair(stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key"))
        request = stem.with_name(f"{stem.name}.csr")
        kinds = ("IP:127.0.0.1" if name == "127.0.0.1" else f"DNS:{name}" for name in names)
        extension = ("-addext", f"subjectAltName={','.join(kinds)}", "-subj", "/CN=test")
        _openssl("req", *CURVE, *extension, "-keyout", pair.key, "-out", request)
        signer = ("-CA", self.ca, "-CAkey", self._key, "-days", "1", "-copy_extensions", "copy")
        _openssl("x509", "-req", "-in", request, *signer, "-out", pair.certificate)
        return pair


def lock(key: Path, locked: Path) -> None:
    """The same key, behind a password."""
    _openssl("pkey", "-in", key, "-out", locked, "-aes256", "-passout", "pass:word")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)
