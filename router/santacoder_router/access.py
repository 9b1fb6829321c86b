"""Which method wants which right, and whether a call's token has it. Knows no connection.

What is not in the table is refused: a method that is added without a rule cannot be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from santacoder_router.errors import PermissionDenied, Reason, Unauthenticated
from santacoder_router.tokens import Right, Token, TokenExpired, Tokens

INFERENCE = "/santacoder.inference.v1"
RIGHTS: Mapping[str, Right] = {
    f"{INFERENCE}.CompletionService/Complete": Right.COMPLETE,
    f"{INFERENCE}.CompletionService/StreamComplete": Right.COMPLETE,
    f"{INFERENCE}.CompletionService/CompletionSession": Right.COMPLETE,
    f"{INFERENCE}.TokenizerService/Tokenize": Right.TOKENIZE,
    f"{INFERENCE}.TokenizerService/Detokenize": Right.TOKENIZE,
    f"{INFERENCE}.ModelService/GetModel": Right.INFO,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Right.REFLECT,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Right.REFLECT,
}
# Whoever keeps a service running asks for its health, and has no token: one word, and no more.
OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
SCHEME = "bearer"

Metadata = Iterable[tuple[str, str | bytes]]


class Access:
    """Decides on calls. `tokens` gives the tokens as of now."""

    def __init__(self, tokens: Callable[[], Tokens]) -> None:
        self._tokens = tokens

    def check(self, method: str, metadata: Metadata) -> Token | None:
        """The caller's token, None where anybody may call.

        Raises Unauthenticated or PermissionDenied.
        """
        if method in OPEN_METHODS:
            return None
        token = self._identify(metadata)
        right = RIGHTS.get(method)
        if right is None or right not in token.rights:
            raise PermissionDenied(
                Reason.METHOD_NOT_ALLOWED,
                f"token: no right to this method; got {token.caller};"
                f" allowed with {right or 'none'}",
                metadata={"method": method, "right": right or ""},
            )
        return token

    def _identify(self, metadata: Metadata) -> Token:
        secret = _secret(metadata)
        try:
            token = self._tokens().find(secret)
        except TokenExpired:
            raise Unauthenticated(Reason.TOKEN_EXPIRED, "token: has expired") from None
        if token is None:
            raise Unauthenticated(Reason.TOKEN_INVALID, "token: not known here")
        return token


def _secret(metadata: Metadata) -> bytes:
    values = [value for key, value in metadata if key == "authorization"]
    if not values:
        raise Unauthenticated(
            Reason.TOKEN_MISSING, "token: missing; allowed metadata authorization: Bearer TOKEN"
        )
    value = values[0] if isinstance(values[0], bytes) else values[0].encode()
    scheme, _, secret = value.partition(b" ")
    if len(values) > 1 or scheme.lower() != SCHEME.encode() or not secret:
        raise Unauthenticated(
            Reason.TOKEN_INVALID, "token: not as it should be; allowed Bearer, a space, the token"
        )
    return secret
