"""The token file: what it grants, until when, and that no message gives away what is in it."""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from santacoder_router.reloading import UnusableFile
from santacoder_router.tokens import Right, TokenExpired, read_tokens

SECRET = "correct-horse-battery-staple-0123456789"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "tokens"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def test_a_token_is_known_by_its_digest_and_has_the_rights_of_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"# who\n\nalice {DIGEST} complete,info\nbob {'0' * 64} tokenize\n")
    known = read_tokens(path)
    token = known.find(SECRET.encode())
    assert token is not None
    assert token.caller == "alice" and token.rights == {Right.COMPLETE, Right.INFO}
    for other in (SECRET + " ", SECRET[:-1], SECRET.upper(), "", DIGEST):
        assert known.find(other.encode()) is None
    assert DIGEST not in repr(token) and repr(token.digest) not in repr(token)


@pytest.mark.parametrize("expiry", ["2030-01-02", "2030-01-02T00:00:00Z", "2030-01-02T02:00+02:00"])
def test_a_token_is_good_until_its_time(tmp_path: Path, expiry: str) -> None:
    path = write(tmp_path, f"alice {DIGEST} complete {expiry}")
    times = [datetime(2030, 1, 1, 23, 59, 59, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)]
    known = read_tokens(path, lambda: times[0])
    assert known.find(SECRET.encode()) is not None
    del times[0]
    with pytest.raises(TokenExpired):
        known.find(SECRET.encode())


def test_every_digest_is_compared_in_constant_time_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"first {DIGEST} info", *(f"n{i} {i:064x} info" for i in range(9))]
    known = read_tokens(write(tmp_path, "\n".join(lines)))
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert known.find(SECRET.encode()) is not None
    assert len(compared) == 10


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds 0 tokens; allowed 1..1024"),
        (f"alice {DIGEST}", "line 1: got 2 words"),
        (f"al/ce {DIGEST} info", "line 1: not a name"),
        (f"# x\nalice {SECRET} info", "line 2: not the SHA-256 digest of a token; got 39"),
        (f"alice {DIGEST.upper()} info", "line 1: not the SHA-256 digest"),
        (f"alice {DIGEST} root", "line 1: not a right; allowed complete, tokenize, info, reflect"),
        (f"alice info {SECRET}", "line 1: not the SHA-256 digest"),
        (f"alice {DIGEST} info soon", "line 1: not a time"),
        (f"a {DIGEST} info\nb {DIGEST} info", "holds the same digest twice"),
        (b"\xff\xfe", "not text"),
        (b"#" * ((1 << 20) + 1), "too large"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_that_shows_nothing_of_it(
    tmp_path: Path, text: str | bytes, line: str
) -> None:
    with pytest.raises(UnusableFile) as caught:
        read_tokens(write(tmp_path, text))
    message = str(caught.value)
    assert message.startswith("--token-file: ") and line in message and "\n" not in message
    assert SECRET not in message and DIGEST not in message


@pytest.mark.fault("G4")
def test_a_file_that_others_may_read_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f"alice {DIGEST} info")
    path.chmod(0o640)
    with pytest.raises(UnusableFile, match=r"open to other users; .* with mode 0640; allowed 0600"):
        read_tokens(path)
    path.unlink()
    with pytest.raises(UnusableFile, match="--token-file: No such file"):
        read_tokens(path)


@pytest.mark.fault("G4")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(UnusableFile, match="--token-file: not a regular file; got "):
        read_tokens(path)
