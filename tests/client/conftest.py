"""Both clients, and the fake router that they talk to over loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from awaited import Ask, ask_async, ask_sync

from santacoder_client.testing import Answer, FakeRouter

Serve = Callable[..., FakeRouter]


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts routers that give these answers."""
    with ExitStack() as routers:

        def start(*answers: Answer) -> FakeRouter:
            return routers.enter_context(FakeRouter(*answers))

        yield start
