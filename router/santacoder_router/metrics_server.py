"""The page that Prometheus reads: plain HTTP on loopback, in threads of its own.

A reader that hangs, or asks a hundred times a second, costs a few threads for a few seconds, and
never the event loop.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from santacoder_router.metrics import Metrics

MOST_READERS = 8
# A reader that says nothing, or takes nothing, for so long is gone.
READER_SECONDS = 5.0


class MetricsServer:
    """Serves a registry over HTTP; raises OSError if the port is taken."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        page: Any = make_wsgi_app(metrics.registry)
        self._host = host
        self._server = make_server(host, port, page, _Server, _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        return self._server.server_port

    def close(self) -> None:
        """Stops serving, at once."""
        ending = threading.Thread(target=self._server.shutdown)
        ending.start()
        # The server sees that it is to end twice a second, or when somebody connects.
        with contextlib.suppress(OSError):
            socket.create_connection((self._host, self.port), timeout=1.0).close()
        ending.join()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each of so many readers; the next one is hung up on."""

    daemon_threads = True
    # The library's five are gone in a burst, and who is beyond them waits a second and more.
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(MOST_READERS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that went away is nobody's error."""


class _Handler(WSGIRequestHandler):
    timeout = READER_SECONDS

    def log_message(self, format: str, *values: object) -> None:
        """Readers come every few seconds: nothing to log."""
