"""The blocking client: turns a call into a message, sends it with a deadline, gives the answer.

Knows no field of a message (`_codec.py`) and no setting of a channel (`_channel.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self, Unpack

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import _calls, _codec
from santacoder_client._channel import (
    DEFAULT_TARGET,
    HEALTH_SECONDS,
    READY_POLL_SECONDS,
    SERVING,
    Connection,
    not_ready,
)
from santacoder_client._options import CompletionOptions
from santacoder_client._resume import read_bookmark
from santacoder_client._retry import DEFAULT_POLICY, Retries, RetryBudget, RetryPolicy
from santacoder_client._security import servers_of
from santacoder_client._session import Session
from santacoder_client._stream import CompletionStream
from santacoder_client._tls import TLS, tls_of
from santacoder_client.errors import DeadlineExceeded, Unavailable, rpc_errors
from santacoder_client.types import Completion, Infill, ModelInfo, Priority, Prompt


class Client:
    """One server, called and waited for. Threads may share a client; forked processes may not.

    Every verb raises SantaCoderError (see `errors.py`), and RuntimeError after `close`.

    Example:
        >>> with Client("127.0.0.1:50051") as client:
        ...     done = client.complete("def fib(n):", max_new_tokens=64, temperature=0.0)
        ...     print(done.text, done.finish_reason, done.usage.completion_token_count)
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: TLS | bool = False,
        token: str | None = None,
        allow_plain_token: bool = False,
        retry: RetryPolicy | None = DEFAULT_POLICY,
    ) -> None:
        """Sends nothing yet. Raises ValueError for what cannot be used.

        Args:
            target: HOST:PORT or unix:PATH, or several with commas between: the first that serves
                is used, and the next when it is gone.
            tls: encrypt; a TLS says with which certificates, True with those gRPC trusts.
            token: says who calls, where the server wants to know.
            allow_plain_token: send the token to another machine without encryption.
            retry: how long calls wait for a server that is gone, and go on with the next; None
                means that they fail.
        """
        servers = servers_of(target, tls_of(tls), token, allow_plain_token)
        self._connection = Connection(servers)
        self._retry = retry
        self._budget = RetryBudget()

    def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Completion:
        """Continues a prompt: text, or token ids as `tokenize` gives them.

        Args:
            prompt: what to continue.
            options: see `CompletionOptions`; what is not given is the server's default.

        Raises:
            TypeError: an option that does not exist.
            InvalidRequest: a value that is wrong, here or at the server.
            SantaCoderError: anything else that can go wrong.
        """
        return self._complete(prompt, options)

    def stream(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> CompletionStream:
        """Like `complete`, in pieces as they come. Pieces joined equal `complete`'s text.

        Example:
            >>> for piece in client.stream("def fib(n):", max_new_tokens=64):
            ...     print(piece.text, end="", flush=True)
        """
        return self._stream(prompt, options)

    def infill(self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]) -> Completion:
        """Fills in the middle: the text that belongs between prefix and suffix.

        Example:
            >>> client.infill("def add(a, b):\\n    return ", "\\n", max_new_tokens=16).text
        """
        return self._complete(Infill(prefix, suffix), options)

    def stream_infill(
        self, prefix: str, suffix: str, **options: Unpack[CompletionOptions]
    ) -> CompletionStream:
        """Like `infill`, in pieces as they come."""
        return self._stream(Infill(prefix, suffix), options)

    def resume(self, bookmark: bytes, *, timeout: float | None = None) -> CompletionStream:
        """Goes on with a stream of a process that has died, behind what it had.

        Pieces, and `result`, are of the rest alone; `usage` counts the whole. Raises ValueError for
        what `bookmark` of a stream did not give.
        """
        return self._streamed(read_bookmark(bookmark), _codec.check_timeout(timeout))

    def session(
        self, *, priority: Priority | str | None = None, cache_salt: str | bytes | None = None
    ) -> Session:
        """Opens an editor's session, in which every completion supersedes the one before.

        Args:
            priority: for turns that give none.
            cache_salt: for turns that give none.
        """
        opening = _codec.encode_session_open({"priority": priority, "cache_salt": cache_salt})
        return Session(self._connection, opening, self._retries)

    def tokenize(self, text: str, *, timeout: float | None = None) -> list[int]:
        """The text's ids, none added. What looks like a special token stays text."""
        request = _codec.encode_tokenize(text)
        seconds = _codec.check_timeout(timeout)
        response = _calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.tokenizer.Tokenize(request, timeout=left),
        )
        return list(response.token_ids)

    def detokenize(self, token_ids: Sequence[int], *, timeout: float | None = None) -> str:
        """The ids' text; bytes that are no whole character show as U+FFFD."""
        request = _codec.encode_detokenize(token_ids)
        seconds = _codec.check_timeout(timeout)
        response = _calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.tokenizer.Detokenize(request, timeout=left),
        )
        return response.text

    def model(self, *, timeout: float | None = None) -> ModelInfo:
        """What is served: geometry, limits, defaults, capabilities."""
        seconds = _codec.check_timeout(timeout)
        response = _calls.ask(
            self._connection,
            self._retries(seconds),
            lambda stubs, left: stubs.model.GetModel(pb.GetModelRequest(), timeout=left),
        )
        return _codec.decode_model(response)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server says that it serves; Unavailable after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        stubs, is_alone = self._connection.stubs(), not self._connection.has_others
        while (left := deadline - time.monotonic()) > 0:
            seconds = left if is_alone else min(left, HEALTH_SECONDS)
            with suppress(Unavailable, DeadlineExceeded), rpc_errors():
                if stubs.health(b"", timeout=seconds, wait_for_ready=is_alone) == SERVING:
                    return
            stubs = self._connection.leave(stubs)
            time.sleep(READY_POLL_SECONDS)
        raise not_ready(timeout)

    def close(self) -> None:
        """Cancels what is running. May be called again."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _complete(self, prompt: Prompt | Infill, options: CompletionOptions) -> Completion:
        completion, timeout_seconds = _codec.encode_call(prompt, options)
        retries = self._retries(timeout_seconds)
        response = _calls.complete(self._connection, completion, retries)
        return _codec.decode_completion(response)

    def _stream(self, prompt: Prompt | Infill, options: CompletionOptions) -> CompletionStream:
        return self._streamed(*_codec.encode_call(prompt, options))

    def _streamed(
        self, completion: pb.CompletionRequest, timeout_seconds: float | None
    ) -> CompletionStream:
        retries = self._retries(timeout_seconds)
        call = _calls.ResumingCall(self._connection, completion, retries)
        return CompletionStream(call.receive, call.cancel, call.rest)

    def _retries(self, timeout_seconds: float | None) -> Retries:
        return Retries(self._retry, self._budget, timeout_seconds)
