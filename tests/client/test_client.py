"""The verbs of both clients, over real gRPC to a scripted router."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from awaited import Ask
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import (
    AsyncClient,
    Cancelled,
    Client,
    Completion,
    CompletionOptions,
    DeadlineExceeded,
    FimOrder,
    FinishReason,
    InvalidRequest,
    Piece,
    Priority,
    Unavailable,
)
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]

EVERY_OPTION = CompletionOptions(
    max_new_tokens=9,
    min_new_tokens=2,
    temperature=0.5,
    top_k=40,
    top_p=0.9,
    min_p=0.1,
    typical_p=0.8,
    repetition_penalty=1.2,
    presence_penalty=0.3,
    frequency_penalty=-0.4,
    seed=2**63 - 1,
    stop=["\n\n", "é"],
    stop_token_ids=[3, 2**40],
    ignore_eos=True,
    logit_bias={7: -100, 8: 0.5},
    logprobs=2,
    echo=True,
    completion_count=3,
    fim_order="spm",
    truncate="keep_nearest",
    priority="low",
    cache_salt="salt",
    request_id="me-1",
    time_budget=1.25,
    timeout=30,
)
EVERY_FIELD = pb.CompletionRequest(
    request_id="me-1",
    infill=pb.InfillPrompt(prefix="a", suffix="b", order=pb.FIM_ORDER_SPM),
    sampling=pb.Sampling(
        temperature=0.5,
        top_k=40,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=-0.4,
        seed=2**63 - 1,
        logit_bias={7: -100, 8: 0.5},
    ),
    stopping=pb.Stopping(
        max_new_tokens=9,
        min_new_tokens=2,
        stop=["\n\n", "é"],
        stop_token_ids=[3, 2**40],
        ignore_eos=True,
    ),
    output=pb.Output(logprobs=2, echo=True),
    completion_count=3,
    priority=pb.PRIORITY_LOW,
    cache_salt=b"salt",
    time_budget=Duration(seconds=1, nanos=250_000_000),
    truncate=pb.TRUNCATE_POLICY_KEEP_NEAREST,
)


def wait_for_requests(router: FakeRouter, count: int = 1) -> None:
    """Waits until the router has been asked so often."""
    while len(router.requests) < count:
        time.sleep(0.01)


def choices_of(pieces: list[Piece]) -> dict[int, tuple[str, list[int], FinishReason | None]]:
    """What the pieces of each choice say when joined."""
    joined: dict[int, tuple[str, list[int], FinishReason | None]] = {}
    for piece in pieces:
        text, token_ids, reason = joined.get(piece.index, ("", [], None))
        assert reason is None, "a piece came after the last one of its choice"
        joined[piece.index] = (text + piece.text, token_ids + piece.token_ids, piece.finish_reason)
    return joined


def test_every_option_arrives_in_the_message(ask: Ask, serve: Serve) -> None:
    router = serve()
    ask(router.target, lambda client: client.infill("a", "b", **EVERY_OPTION))
    assert router.requests == [EVERY_FIELD]


def test_options_not_given_are_not_sent_and_none_is_not_given(ask: Ask, serve: Serve) -> None:
    router = serve()
    ask(router.target, lambda client: client.complete("x", top_k=None, stop=None))
    assert router.requests == [pb.CompletionRequest(text="x")]


def test_zeros_and_false_are_sent(ask: Ask, serve: Serve) -> None:
    router = serve()
    ask(router.target, lambda client: client.complete("x", temperature=0, seed=0, echo=False))
    expected = pb.CompletionRequest(text="x", sampling=pb.Sampling(temperature=0, seed=0))
    expected.output.echo = False
    assert router.requests == [expected]


def test_a_prompt_is_text_or_ids(ask: Ask, serve: Serve) -> None:
    router = serve()

    async def scenario(client: AsyncClient) -> None:
        await client.complete([5, 6])
        await client.complete("[5, 6]")

    ask(router.target, scenario)
    ids, text = router.requests
    assert list(ids.token_ids.ids) == [5, 6]
    assert text.text == "[5, 6]"


def test_fim_order_says_nothing_about_a_plain_prompt(ask: Ask, serve: Serve) -> None:
    router = serve()
    ask(router.target, lambda client: client.complete("x", fim_order="spm"))
    assert router.requests == [pb.CompletionRequest(text="x")]


def test_streamed_equals_unary_in_every_field(ask: Ask, serve: Serve) -> None:
    answer = Answer(("def ", "", "é()"), FinishReason.STOP, matched_stop="\n", matched_token_id=7)
    router = serve(answer)

    async def scenario(client: AsyncClient) -> tuple[Completion, Completion, list[Piece]]:
        options = CompletionOptions(completion_count=2, logprobs=3)
        whole = await client.complete("x", **options)
        stream = client.stream("x", **options)
        pieces = [piece async for piece in stream]
        return whole, await stream.result(), pieces

    whole, streamed, pieces = ask(router.target, scenario)
    assert streamed == whole
    assert whole.text == "def é()"
    assert whole.choices[1].matched_stop == "\n"
    assert whole.choices[1].matched_token_id == 7
    assert [len(position.top) for position in whole.logprobs] == [3] * len(whole.token_ids)
    assert choices_of(pieces) == {
        choice.index: (choice.text, choice.token_ids, choice.finish_reason)
        for choice in whole.choices
    }
    assert [piece.finish_reason for piece in pieces[-2:]] == [FinishReason.STOP] * 2


def test_pieces_come_before_the_answer_is_whole(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a",) * 600, seconds_per_piece=0.1))

    async def scenario(client: AsyncClient) -> float:
        started = time.monotonic()
        async for piece in client.stream("x"):
            assert piece.text == "a"
            break
        return time.monotonic() - started

    assert ask(router.target, scenario) < 30  # of the sixty seconds that the answer takes


def test_the_effective_values_come_back(ask: Ask, serve: Serve) -> None:
    router = serve()

    async def scenario(client: AsyncClient) -> tuple[Completion, Completion]:
        plain = await client.complete("xyz", request_id="me-2")
        return plain, await client.infill("a", "b", **EVERY_OPTION)

    plain, infill = ask(router.target, scenario)
    assert plain.request_id == plain.accepted.request_id == "me-2"
    assert plain.accepted.stopping.max_new_tokens == 128
    assert plain.accepted.fim_order is None
    assert plain.accepted.priority is Priority.NORMAL
    assert plain.accepted.output.logprobs is None
    assert plain.usage.prompt_token_count == 3
    assert (plain.timings.queue_seconds, plain.timings.total_seconds) == (0.001, 0.003)
    assert infill.accepted.fim_order is FimOrder.SPM
    assert infill.accepted.priority is Priority.LOW
    assert infill.accepted.sampling.seed == 2**63 - 1
    assert infill.accepted.sampling.logit_bias == {7: -100.0, 8: 0.5}
    assert infill.accepted.stopping.stop == ("\n\n", "é")


def test_a_stream_knows_what_has_come_so_far(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a", "b")))

    async def scenario(client: AsyncClient) -> None:
        stream = client.stream_infill("x", "y", request_id="me-3")
        assert stream.usage is None
        await anext(stream)
        assert stream.request_id == "me-3"
        assert stream.usage is None
        whole = await stream.result()
        assert stream.usage == whole.usage
        assert stream.timings == whole.timings
        assert whole.text == "ab"

    ask(router.target, scenario)
    assert router.requests[0].infill.suffix == "y"


def test_leaving_the_loop_cancels_at_once_even_if_the_stream_has_a_name(
    ask: Ask, serve: Serve
) -> None:
    router = serve(Answer(("a",) * 600, seconds_per_piece=0.1))

    async def scenario(client: AsyncClient) -> None:
        stream = client.stream("x")
        async for piece in stream:
            assert piece.text == "a"
            break
        assert router.wait_for_cancel(timeout=30)
        assert [piece async for piece in stream] == []

    ask(router.target, scenario)


def test_an_error_in_the_loop_cancels(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a",) * 600, seconds_per_piece=0.1))

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(ZeroDivisionError):
            async for _ in client.stream("x"):
                raise ZeroDivisionError
        assert router.wait_for_cancel(timeout=30)

    ask(router.target, scenario)


def test_closing_a_stream_cancels_and_ends_it(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a",) * 600, seconds_per_piece=0.1))

    async def scenario(client: AsyncClient) -> None:
        stream = client.stream("x")
        await anext(stream)
        await stream.aclose()
        assert router.wait_for_cancel(timeout=30)
        assert [piece async for piece in stream] == []
        with pytest.raises(Cancelled):
            await stream.result()

    ask(router.target, scenario)


def test_reading_to_the_end_cancels_nothing(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a", "b")))

    async def scenario(client: AsyncClient) -> list[str]:
        return [piece.text async for piece in client.stream("x")]

    assert "".join(ask(router.target, scenario)) == "ab"
    assert not router.wait_for_cancel(timeout=0.2)


def test_cancel_from_another_thread_ends_a_waiting_stream(serve: Serve) -> None:
    router = serve(Answer(("a", "b"), seconds_per_piece=60))
    with Client(router.target) as client:
        stream = client.stream("x")

        def cancel_once_asked() -> None:
            wait_for_requests(router)
            stream.cancel()

        threading.Thread(target=cancel_once_asked).start()
        assert list(stream) == []
    assert router.wait_for_cancel(timeout=30)


def test_cancelling_the_task_cancels_the_request(serve: Serve) -> None:
    router = serve(Answer(("a",), seconds_per_piece=60))

    async def scenario() -> None:
        async with AsyncClient(router.target) as client:
            tasks = [
                asyncio.create_task(client.complete("x")),
                asyncio.create_task(client.stream("x").result()),
            ]
            while len(router.requests) < 2:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
            assert router.wait_for_cancel(2, timeout=30)

    asyncio.run(scenario())


def test_timeout_is_the_deadline_of_the_call(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a",), seconds_per_piece=60))

    async def scenario(client: AsyncClient) -> None:
        # Again where the time was up before the request had left.
        while not router.requests:
            with pytest.raises(DeadlineExceeded) as unary:
                await client.complete("x", timeout=0.2)
            assert unary.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert router.wait_for_cancel(len(router.requests), timeout=30)
        while router.requests[-1].text != "y":
            with pytest.raises(DeadlineExceeded):
                await client.stream("y", timeout=0.2).result()

    ask(router.target, scenario)
    assert router.wait_for_cancel(len(router.requests), timeout=30)


def test_unavailable_is_retried_before_the_first_message(ask: Ask, serve: Serve) -> None:
    draining = Answer((), failure=Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING"))
    unary, streamed = serve(draining, draining, Answer()), serve(draining, Answer(("ok",)))
    assert ask(unary.target, lambda client: client.complete("x")).text == "ok"
    assert ask(streamed.target, lambda client: client.stream("x").result()).text == "ok"
    assert (len(unary.requests), len(streamed.requests)) == (3, 2)


def test_nothing_is_retried_after_the_first_message(ask: Ask, serve: Serve) -> None:
    lost = Failure(grpc.StatusCode.UNAVAILABLE, "SHARD_LOST")
    router = serve(Answer(("a",), failure=lost), Answer())

    async def scenario(client: AsyncClient) -> list[str]:
        texts = []
        with pytest.raises(Unavailable) as caught:
            async for piece in client.stream("x"):
                texts.append(piece.text)
        assert caught.value.reason == "SHARD_LOST"
        return texts

    assert ask(router.target, scenario) == ["a"]
    assert len(router.requests) == 1


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.ABORTED]
)
def test_no_other_failure_is_retried(ask: Ask, serve: Serve, code: grpc.StatusCode) -> None:
    router = serve(Answer((), failure=Failure(code)), Answer())

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(Exception, match="scripted failure"):
            await client.complete("x")

    ask(router.target, scenario)
    assert len(router.requests) == 1


def test_tokenize_and_detokenize_are_the_server_s(ask: Ask, serve: Serve) -> None:
    router = serve()

    async def scenario(client: AsyncClient) -> tuple[list[int], str]:
        token_ids = await client.tokenize("x = é")
        return token_ids, await client.detokenize(token_ids)

    token_ids, text = ask(router.target, scenario)
    assert token_ids == [120, 32, 61, 32, 233]
    assert text == "x = é"


def test_model_says_what_is_served(ask: Ask, serve: Serve) -> None:
    model = ask(serve().target, lambda client: client.model())
    assert model.name == "fake"
    assert model.infill_supported is True
    assert model.limits.context_token_count == 2048
    assert model.default_sampling.temperature == 0.0
    assert model.default_sampling.seed is None
    assert model.special_tokens[0].text == "<|endoftext|>"


def test_wait_ready_returns_when_health_says_serving(ask: Ask) -> None:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()

        async def scenario(client: AsyncClient) -> float:
            with pytest.raises(Unavailable, match=r"not ready after 0\.3 s"):
                await client.wait_ready(0.3)
            started = time.monotonic()
            serving = health_pb2.HealthCheckResponse.SERVING
            threading.Timer(0.3, servicer.set, ["", serving]).start()
            await client.wait_ready(600)
            return time.monotonic() - started

        assert 0.25 < ask(target, scenario) < 60
        server.stop(None).wait()


def test_wait_ready_waits_for_a_server_that_is_not_there(ask: Ask, serve: Serve) -> None:
    target = serve().target
    ask(target, lambda client: client.wait_ready(60))

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(Unavailable):
            await client.wait_ready(0.3)

    ask("127.0.0.1:1", scenario)


def test_use_after_close_is_a_clear_runtime_error(ask: Ask, serve: Serve) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.complete("x")
        await client.close()
        await client.close()
        for use in (
            lambda: client.complete("x"),
            lambda: client.model(),
            lambda: client.tokenize("x"),
        ):
            with pytest.raises(RuntimeError, match="the client is closed; make a new one"):
                await use()
        with pytest.raises(RuntimeError, match="closed"):
            client.stream("x")
        with pytest.raises(RuntimeError, match="closed"):
            client.session()

    ask(serve().target, scenario)


def test_closing_the_client_cancels_what_runs(serve: Serve) -> None:
    router = serve(Answer(("a",), seconds_per_piece=60))
    client = Client(router.target)

    def close_once_asked() -> None:
        wait_for_requests(router)
        client.close()

    threading.Thread(target=close_once_asked).start()
    with pytest.raises(Cancelled):
        client.complete("x")

    async def scenario() -> None:
        async_client = AsyncClient(router.target)
        work = asyncio.create_task(async_client.complete("x"))
        while len(router.requests) < 2:
            await asyncio.sleep(0.01)
        await async_client.close()
        with pytest.raises(Cancelled):
            await work

    asyncio.run(scenario())
    assert router.wait_for_cancel(2, timeout=30)


def test_use_in_another_event_loop_is_a_clear_runtime_error(serve: Serve) -> None:
    router = serve()
    client = AsyncClient(router.target)
    with asyncio.Runner() as first:
        first.run(client.complete("x"))
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="another event loop"):
            second.run(client.complete("x"))
        first.run(client.close())


def test_use_after_fork_is_a_clear_runtime_error(
    ask: Ask, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: AsyncClient) -> None:
        monkeypatch.setattr("santacoder_client._channel.os.getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="forked"):
            await client.complete("x")

    ask(serve().target, scenario)


@pytest.mark.parametrize("target", ["", None, 50051])
def test_a_target_that_is_no_address_is_refused(target: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="target: not an address; got"):
            kind(target)


def test_wrong_values_are_refused_before_any_network(ask: Ask, serve: Serve) -> None:
    router = serve()

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(InvalidRequest) as caught:
            client.stream("x", top_k="many")  # type: ignore[arg-type]
        assert caught.value.violations[0].field == "sampling.top_k"
        with pytest.raises(InvalidRequest):
            await client.infill("x", None)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            await client.complete("x" * (4 * 1024 * 1024 + 1))
        with pytest.raises(TypeError, match="unexpected keyword argument 'frequencey_penalty'"):
            await client.complete("x", frequencey_penalty=1)  # type: ignore[call-arg]

    ask(router.target, scenario)
    assert router.requests == []
