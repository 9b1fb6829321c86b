"""Every row of bad inputs, while a victim streams: each is told why, the victim loses nothing."""

from __future__ import annotations

import ast
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from bad_inputs.row import Place, Row
from bad_inputs.table import ROWS, UNUSED
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_service import WAIT_SECONDS, Service
from system.cases import prompt_ids

from santacoder_client import Client, CompletionOptions

TESTS = Path(__file__).parents[1]
VICTIM_PROMPT = prompt_ids(81, 30)
VICTIM_OPTIONS = CompletionOptions(
    max_new_tokens=200, temperature=0.8, seed=4, ignore_eos=True, logprobs=1
)
TRIED = [row for row in ROWS if row.tries]
SEEN_ELSEWHERE = [row for row in ROWS if row.seen_by]

Said = tuple[list[int], str, list[float]]


class Victim:
    """Asks for the same stream again and again, and fails when it ever says another thing."""

    def __init__(self, client: Client, golden: Said) -> None:
        self.count = 0
        self.has_begun = threading.Event()
        self.stopping = threading.Event()
        self._client = client
        self._golden = golden

    def stream_on(self) -> None:
        while not self.stopping.is_set():
            pieces = []
            for piece in self._client.stream(VICTIM_PROMPT, **VICTIM_OPTIONS):
                self.has_begun.set()
                pieces.append(piece)
            said = (
                [token_id for piece in pieces for token_id in piece.token_ids],
                "".join(piece.text for piece in pieces),
                [entry.chosen.logprob for piece in pieces for entry in piece.logprobs],
            )
            assert said == self._golden
            self.count += 1


@pytest.fixture(scope="module")
def golden(client: Client) -> Said:
    done = client.complete(VICTIM_PROMPT, **VICTIM_OPTIONS)
    return done.token_ids, done.text, [entry.chosen.logprob for entry in done.logprobs]


@pytest.fixture(scope="module")
def streaming(service: Service, client: Client, golden: Said) -> Iterator[Future[None]]:
    """The victim, throughout; afterwards nothing may be held that was not held before."""
    service.wait_metric("santacoder_router_running_requests", 0)
    held = service.metric("santacoder_router_kv_blocks", state="held")
    victim = Victim(client, golden)
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(victim.stream_on)
        try:
            assert victim.has_begun.wait(WAIT_SECONDS)
            yield future
        finally:
            victim.stopping.set()
    future.result()
    assert victim.count
    service.wait_metric("santacoder_router_running_requests", 0)
    service.wait_metric("santacoder_router_kv_blocks", held, state="held")


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(service.target, options=options) as opened:
        yield opened


@pytest.fixture
def place(
    service: Service,
    channel: grpc.Channel,
    client: Client,
    tmp_path: Path,
    streaming: Future[None],
) -> Iterator[Place]:
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "an-empty-folder").mkdir()
    before = service.children()
    yield Place(service, channel, client, tmp_path)
    assert not streaming.done(), streaming.exception()
    assert service.children() == before


@pytest.mark.parametrize("row", TRIED, ids=[row.name for row in TRIED])
def test_a_bad_input_is_answered_as_the_table_says(row: Row, place: Place) -> None:
    answers = {way: attempt(place) for way, attempt in row.tries.items()}
    assert answers == dict.fromkeys(row.tries, row.answer)


def test_health_serves_through_it_all(place: Place) -> None:
    request = health_pb2.HealthCheckRequest()
    health = health_pb2_grpc.HealthStub(place.channel).Check(request, timeout=WAIT_SECONDS)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "POST", "DELETE", "x" * 10_240])
def test_the_metrics_port_answers_get_alone(place: Place, method: str) -> None:
    connection = http.client.HTTPConnection(place.service.metrics_address, timeout=WAIT_SECONDS)
    try:
        connection.request(method, "/metrics")
        assert 400 <= connection.getresponse().status < 600
    finally:
        connection.close()


def test_every_row_of_the_list_is_in_the_table() -> None:
    numbers = {row.number for row in ROWS}
    assert set(range(1, 126)) - UNUSED <= numbers
    assert len({(row.number, row.input) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", SEEN_ELSEWHERE, ids=[row.name for row in SEEN_ELSEWHERE])
def test_a_row_that_another_test_shows_names_it(row: Row) -> None:
    file, _, name = row.seen_by.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
