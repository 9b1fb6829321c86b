"""A rank's certificates: read anew when they change, refused in one line where they are no good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import Authority, lock

from santacoder_shard.certificate_files import CertificateFiles
from santacoder_shard.certificates import _Fetcher, server_credentials
from santacoder_shard.config import parse_config
from santacoder_shard.errors import UnusableOption
from santacoder_shard.log import make_logger

LOG = make_logger("error")
TLS = ("--tls-cert=c", "--tls-key=k", "--tls-client-ca=a")
GOOD = ("--rank=0", "--model=m", "--listen=0.0.0.0:9")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> CertificateFiles:
    own = authority.issue("shard-0.santacoder.internal")
    return CertificateFiles(own.certificate, own.key, authority.ca)


@pytest.mark.fault("X10")
def test_changed_files_are_taken_once_they_fit(
    authority: Authority, files: CertificateFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch = _Fetcher(files, make_logger("error"))
    assert fetch() is None
    new = authority.issue("shard-0.santacoder.internal", file_name="new")
    new.key.replace(files.key)
    assert fetch() is None
    assert "changed files cannot be used; the old stay" in capsys.readouterr().err
    new.certificate.replace(files.certificate)
    assert fetch() is not None
    assert fetch() is None
    files.key.unlink()
    assert fetch() is None


@pytest.mark.fault("X10")
@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("missing", "--tls-key: No such file or directory; got '"),
        ("open", "--tls-key: open to other users; got '"),
        ("locked", "--tls-cert, --tls-key: no certificate and the key to it"),
        ("ca", "--tls-client-ca: no certificates; got '"),
        ("pipe", "--tls-client-ca: not a regular file; got '"),
    ],
)
def test_files_that_are_no_good_are_refused(
    files: CertificateFiles, tmp_path: Path, broken: str, line: str
) -> None:
    match broken:
        case "missing":
            files.key.unlink()
        case "open":
            files.key.chmod(0o640)
        case "locked":
            lock(files.key, tmp_path / "locked")
            (tmp_path / "locked").replace(files.key)
        case "ca":
            files.client_ca.write_text("nothing")
        case "pipe":
            files.client_ca.unlink()
            os.mkfifo(files.client_ca)
    with pytest.raises(UnusableOption) as caught:
        server_credentials(files, LOG)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (GOOD, "--listen: open to other machines; got 0.0.0.0"),
        ((*GOOD, *TLS[:2]), "--tls-cert: incomplete; allowed --tls-cert, --tls-key, --tls-client"),
        ((*GOOD, *TLS, "--listen=unix:/x"), "--tls-cert: for HOST:PORT; got --listen unix:/x"),
    ],
)
def test_half_of_it_or_on_a_socket_it_is_wrong(
    arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_with_all_of_it_other_machines_may_call() -> None:
    config = parse_config((*GOOD, *TLS))
    assert config.tls == CertificateFiles(Path("c"), Path("k"), Path("a"))


def test_a_rank_without_its_files_ends_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    flags = (f"{flag}{tmp_path}/none" for flag in ("--tls-cert=", "--tls-key=", "--tls-client-ca="))
    words = ["--rank=0", f"--model={tmp_path}", "--listen=127.0.0.1:0", *flags]
    ended = subprocess.run(
        [sys.executable, "-m", "santacoder_shard", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: --tls-cert: No such file or directory; got '{tmp_path}/none'\n"
