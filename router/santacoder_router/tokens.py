"""Who may call: bearer tokens, kept as SHA-256 digests in a file, and what each has a right to.

Knows no wire. A line of the file is a caller's name, the digest of the token in hex, its rights
with commas between, if it ends some day the date or time (UTC) from which on it is not good, and
the caller's limits where they are not the usual ones (`caller_limits.py`), as `rate=20`.
No message shows a field of the file: somebody may have put the token itself there.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from santacoder_router.caller_limits import BadLimit, parse_words
from santacoder_router.reloading import UnusableFile, read_file

FLAG = "--token-file"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_TOKENS = 1024


class Right(enum.StrEnum):
    """What a token may be good for."""

    COMPLETE = "complete"
    """Completions, streams and sessions."""
    TOKENIZE = "tokenize"
    """Text to ids and back."""
    INFO = "info"
    """What is served, and its limits."""
    REFLECT = "reflect"
    """gRPC reflection: the contract."""


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file."""

    caller: str
    digest: bytes = field(repr=False)
    rights: frozenset[Right]
    expires_at: datetime | None
    limits: Mapping[str, object] = field(default_factory=dict)
    """The caller's own limits, by name."""


class TokenExpired(Exception):
    """The token is known, and its time is over."""


class Tokens:
    """All tokens of a file. `now` is the time of day."""

    def __init__(self, tokens: tuple[Token, ...], now: Callable[[], datetime]) -> None:
        self._tokens = tokens
        self._now = now

    def find(self, secret: bytes) -> Token | None:
        """The token that `secret` is, None for none; raises TokenExpired.

        Takes the same time whichever it is: every digest is compared, to its end.
        """
        digest = hashlib.sha256(secret).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is not None and found.expires_at is not None and found.expires_at <= self._now():
            raise TokenExpired
        return found


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def read_tokens(path: Path, now: Callable[[], datetime] = utc_now) -> Tokens:
    """The file's tokens; raises UnusableFile."""
    content = read_file(FLAG, path, is_private=True)
    try:
        tokens = tuple(_parse(content.decode()))
    except UnicodeDecodeError:
        raise UnusableFile(f"{FLAG}: not text; got {str(path)!r}; allowed UTF-8") from None
    if not 1 <= len(tokens) <= MOST_TOKENS:
        raise UnusableFile(f"{FLAG}: holds {len(tokens)} tokens; allowed 1..{MOST_TOKENS}")
    if len({token.digest for token in tokens}) < len(tokens):
        raise UnusableFile(f"{FLAG}: holds the same digest twice; allowed once")
    return Tokens(tokens, now)


def _parse(text: str) -> Iterator[Token]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield _token(words, f"{FLAG}: line {number}")


def _token(words: list[str], where: str) -> Token:
    plain = [word for word in words if "=" not in word]
    if len(plain) not in (3, 4) or words[: len(plain)] != plain:
        allowed = "NAME SHA256 RIGHT[,RIGHT] [EXPIRES] [LIMIT=VALUE ...]"
        raise UnusableFile(f"{where}: got {len(plain)} words; allowed {allowed}")
    name, digest, rights, *expiry = plain
    if not NAME.fullmatch(name):
        raise UnusableFile(f"{where}: not a name; allowed 1..64 letters, digits and . _ -")
    if not DIGEST.fullmatch(digest):
        raise UnusableFile(
            f"{where}: not the SHA-256 digest of a token; got {len(digest)} characters;"
            " allowed 64 of 0-9a-f"
        )
    try:
        granted = frozenset(Right(right) for right in rights.split(","))
    except ValueError:
        raise UnusableFile(f"{where}: not a right; allowed {', '.join(Right)}") from None
    try:
        limits = parse_words(words[len(plain) :])
    except BadLimit as error:
        raise UnusableFile(f"{where}: {error}") from None
    return Token(name, bytes.fromhex(digest), granted, _expiry(expiry, where), limits)


def _expiry(words: list[str], where: str) -> datetime | None:
    if not words:
        return None
    try:
        time = datetime.fromisoformat(words[0])
    except ValueError:
        raise UnusableFile(
            f"{where}: not a time; allowed 2030-12-31 or 2030-12-31T23:59:59Z"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
