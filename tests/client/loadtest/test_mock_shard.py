"""The simulated shard group: what it samples, when it stops, how it ends; and a router on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from mock_service import checksum, mock_service, started

from santacoder.shard.v1 import shard_pb2
from santacoder_client import Client
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.mock_shard.group import MockGroup
from santacoder_client.loadtest.mock_shard.options import Failures, MockOptions, StepTimes
from santacoder_client.loadtest.mock_shard.simulation import step_seconds
from santacoder_client.loadtest.mock_shard.slots import Sampled, SlotTable, Violation, read_rows
from santacoder_client.loadtest.mock_shard.tokenizer_file import byte_tokenizer, read_tokenizer
from santacoder_client.loadtest.mock_shard.truth import TruthLog

SMALL = MockOptions(slot_count=4, context_token_count=128, steps_per_lease=8)
TOKENIZER = byte_tokenizer()
PROMPT = (65, 66, 67)
DEMO_TOKENIZER = Path(__file__).parents[3] / "models/demo/checkpoint/tokenizer.json"
Frames = grpc.aio.StreamStreamCall[bytes, bytes]


def packed(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def admit(slot: int = 0, prompt: tuple[int, ...] = PROMPT, **fields: Any) -> shard_pb2.Admit:
    standing: dict[str, Any] = {
        "sequence": slot + 1,
        "generation": 1,
        "slot": slot,
        "token_ids": packed(*prompt),
        "prompt_length": len(prompt),
        "remaining_max_tokens": 100,
        "ignore_eos": True,
    }
    return shard_pb2.Admit(**standing | fields)


def grant(slot: int = 0, *blocks: int, first: int = 0) -> shard_pb2.BlockGrant:
    return shard_pb2.BlockGrant(slot=slot, first_index=first, block_ids=packed(*blocks))


def rows(*columns: tuple[int, int, int, int]) -> shard_pb2.Rows:
    """Slot, token count, sample, KV token limit of each."""
    slots, counts, samples, limits = zip(*columns, strict=True)
    return shard_pb2.Rows(
        slots=packed(*slots),
        token_counts=packed(*counts),
        samples=bytes(samples),
        kv_token_limits=packed(*limits),
    )


def table(options: MockOptions = SMALL, **fields: Any) -> SlotTable:
    """One sequence in slot 0, with room for 48 tokens."""
    made = SlotTable(options, TOKENIZER)
    made.arrange(shard_pb2.Plan(admits=[admit(**fields)], block_grants=[grant(0, 0, 1, 2)]))
    return made


def run(slots: SlotTable, *columns: tuple[int, int, int, int], steps: int = 1) -> Sampled:
    return slots.run(read_rows(rows(*columns)), steps)


def first_ids(count: int, options: MockOptions = SMALL, **fields: Any) -> list[int]:
    """What a sequence says when nothing ends it, prompt and all in one lease."""
    return run(table(options, **fields), (0, 3, 1, 48), steps=count).ids


def test_a_lease_gives_what_single_steps_give() -> None:
    leased = run(table(), (0, 3, 1, 48), steps=8)
    stepped = table()
    singles = [run(stepped, (0, 3, 1, 48))] + [run(stepped, (0, 1, 1, 48)) for _ in range(7)]
    assert leased.ids == [each.ids[0] for each in singles]
    assert leased.counts == [8] and leased.states == [shard_pb2.ROW_STATE_RUNNING]
    assert set(leased.ids) <= set(TOKENIZER.plain_ids)


def test_ids_depend_on_prompt_and_seed_and_on_no_neighbour() -> None:
    alone = first_ids(8)
    crowd = table()
    others = [admit(1, prompt=(1, 2, 3)), admit(2)]
    crowd.arrange(shard_pb2.Plan(admits=others, block_grants=[grant(1, 3), grant(2, 4)]))
    together = run(crowd, (2, 3, 1, 16), (1, 3, 1, 16), (0, 3, 1, 16), steps=8).ids
    assert together[:8] == together[16:] == alone
    assert together[8:16] != alone
    assert first_ids(8, replace(SMALL, seed=1)) != alone


def test_a_sequence_that_comes_back_goes_on_where_it_was() -> None:
    whole = first_ids(8)
    ids = (*PROMPT, *whole[:5])
    resumed = SlotTable(SMALL, TOKENIZER)
    back = admit(token_ids=packed(*ids), generation=2)
    resumed.arrange(shard_pb2.Plan(admits=[back], block_grants=[grant(0, 0)]))
    assert run(resumed, (0, 8, 1, 16), steps=3).ids == whole[5:]


def test_a_prompt_in_chunks_samples_at_its_end_alone() -> None:
    slots = table()
    first = run(slots, (0, 2, 0, 48))
    assert (first.counts, first.states) == ([0], [shard_pb2.ROW_STATE_RUNNING])
    assert run(slots, (0, 1, 1, 48)).ids == first_ids(1)


def test_a_row_ends_at_its_remaining_maximum_and_is_masked_afterwards() -> None:
    slots = table(remaining_max_tokens=3)
    ended = run(slots, (0, 3, 1, 48), steps=8)
    assert (ended.counts, ended.states) == ([3], [shard_pb2.ROW_STATE_LENGTH])
    after = run(slots, (0, 1, 1, 48), steps=8)
    assert (after.counts, after.states) == ([0], [shard_pb2.ROW_STATE_MASKED])


def test_a_row_without_room_waits_for_blocks_and_goes_on() -> None:
    slots = table()
    short = run(slots, (0, 3, 1, 5), steps=8)
    # Positions 0 to 4 hold the prompt and two ids; the third id was sampled from the last of them.
    assert (short.counts, short.states) == ([3], [shard_pb2.ROW_STATE_KV_LIMIT])
    more = run(slots, (0, 1, 1, 48), steps=5)
    assert [*short.ids, *more.ids] == first_ids(8)


def test_a_stop_id_ends_a_row_but_not_before_its_least_tokens() -> None:
    free = first_ids(8)
    stop = free[4]
    place = free.index(stop)
    stopped = run(table(stop_ids=packed(stop)), (0, 3, 1, 48), steps=8)
    assert stopped.ids == free[: place + 1]
    assert stopped.states == [shard_pb2.ROW_STATE_STOP_ID]
    held = run(table(stop_ids=packed(stop), remaining_min_tokens=8), (0, 3, 1, 48), steps=8)
    assert held.ids == free


def test_end_of_text_comes_by_chance_unless_the_request_ignores_it() -> None:
    options = replace(SMALL, end_every=4)
    ended = run(table(options, ignore_eos=False), (0, 3, 1, 48), steps=40)
    assert ended.states == [shard_pb2.ROW_STATE_END_OF_TEXT]
    assert ended.ids.count(TOKENIZER.end_of_text_id) == 1
    assert ended.ids[-1] == TOKENIZER.end_of_text_id
    ignored = run(table(options), (0, 3, 1, 48), steps=40)
    assert ignored.counts == [40] and TOKENIZER.end_of_text_id not in ignored.ids


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (shard_pb2.Plan(admits=[admit(0)]), "slot 0 is not free"),
        (shard_pb2.Plan(admits=[admit(4)]), "slot 4 is not free"),
        (shard_pb2.Plan(admits=[admit(1, computed_length=3)]), "whole length are"),
        (shard_pb2.Plan(block_grants=[grant(1, 5)]), "slot 1 is empty"),
        (shard_pb2.Plan(block_grants=[grant(0, 5)]), "at 0 of a table of 3"),
        (shard_pb2.Plan(block_grants=[grant(0, 32, first=3)]), "block 32 of 32"),
        (shard_pb2.Plan(rows=rows((1, 1, 1, 16))), "slot 1 is empty"),
        (shard_pb2.Plan(rows=rows((0, 1, 1, 16), (0, 1, 1, 16))), "a slot twice"),
        (shard_pb2.Plan(rows=rows((9, 1, 1, 16))), "slot 9 of 4"),
        (shard_pb2.Plan(rows=rows((0, 4, 1, 48))), "beyond what is known"),
        (shard_pb2.Plan(rows=rows((0, 2, 1, 48))), "samples inside its ids"),
        (shard_pb2.Plan(rows=rows((0, 3, 1, 49))), "a limit above its blocks"),
        (shard_pb2.Plan(rows=shard_pb2.Rows(slots=b"12345")), "no multiple of 4"),
        (shard_pb2.Plan(rows=shard_pb2.Rows(slots=packed(0))), "columns of"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(plan: shard_pb2.Plan, what: str) -> None:
    slots = table()
    with pytest.raises(Violation, match=what):
        slots.arrange(plan)
        slots.run(read_rows(plan.rows), 1)


def test_a_retired_slot_is_free_and_another_generation_is_not_touched() -> None:
    slots = table()
    slots.arrange(shard_pb2.Plan(retires=[shard_pb2.Retire(sequence=1, generation=2)]))
    assert run(slots, (0, 3, 1, 48)).counts == [1]
    slots.arrange(shard_pb2.Plan(retires=[shard_pb2.Retire(sequence=1, generation=1)] * 2))
    slots.arrange(shard_pb2.Plan(admits=[admit(0)]))


def test_a_step_takes_its_base_its_decode_rows_and_the_tokens_of_prompts() -> None:
    times = StepTimes(base_seconds=1, per_row_seconds=0.1, prefill_seconds=0.01)
    mixed = read_rows(rows((0, 1, 1, 16), (1, 1, 1, 16), (2, 5, 1, 16), (3, 1, 0, 16)))
    assert step_seconds(times, mixed) == pytest.approx(1 + 2 * 0.1 + 6 * 0.01)


def test_the_byte_tokenizer_is_one_id_a_byte_and_five_specials() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    read = tokenizers.Tokenizer.from_str(TOKENIZER.content.decode())
    text = "def f(x):\n    return 'é'"
    ids = read.encode(text, add_special_tokens=False).ids
    assert len(ids) == len(text.encode()) and read.decode(ids) == text
    assert TOKENIZER.token_count == read.get_vocab_size() == 261
    assert TOKENIZER.end_of_text_id == 256 and TOKENIZER.sentinel_ids == (257, 258, 259, 260)
    assert read.decode(list(TOKENIZER.plain_ids)).isascii()


def test_another_tokenizer_gives_its_own_ids() -> None:
    read = read_tokenizer(DEMO_TOKENIZER.read_bytes(), "demo")
    assert (read.token_count, read.end_of_text_id) == (5065, 5060)
    assert len(read.sentinel_ids) == 4 and max(read.plain_ids) < 5060


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"model": {"vocab": {}}}', b"\xff"])
def test_a_file_that_is_no_tokenizer_is_told_in_a_line(content: bytes) -> None:
    with pytest.raises(UsageError, match=r"--tokenizer: cannot be read .*; got 'x'; allowed"):
        read_tokenizer(content, "x")


class Ranks:
    """A group in this process, and what a router would ask of it."""

    def __init__(self, channels: list[grpc.aio.Channel]) -> None:
        self._channels = channels
        self._epoch = 0

    async def describe(self, rank: int = 0) -> shard_pb2.DescribeResponse:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        ask = self._channels[rank].unary_unary("/santacoder.shard.v1.ShardService/Describe")
        request = shard_pb2.DescribeRequest(include_tokenizer=True)
        return shard_pb2.DescribeResponse.FromString(await ask(request.SerializeToString()))

    async def open(self, rank: int = 0) -> Frames:
        start: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        start = self._channels[rank].stream_stream("/santacoder.shard.v1.ShardService/Execute")
        call = start()
        self._epoch = (await self.describe(rank)).epoch
        hello = shard_pb2.Hello(protocol_version=1, epoch=self._epoch, rank=rank)
        await call.write(shard_pb2.ExecuteRequest(hello=hello).SerializeToString())
        return call

    async def plan(self, call: Frames, number: int, **fields: Any) -> None:
        plan = shard_pb2.Plan(epoch=self._epoch, number=number, num_steps=1)
        plan.MergeFrom(shard_pb2.Plan(**fields))
        await call.write(shard_pb2.ExecuteRequest(plan=plan).SerializeToString())


async def next_frame(call: Frames, kind: str) -> Any:
    """The next frame of a kind; heartbeats come between."""
    while True:
        raw = await asyncio.wait_for(call.read(), 60)
        assert isinstance(raw, bytes), f"the stream ended: {await call.details()}"
        response = shard_pb2.ExecuteResponse.FromString(raw)
        if response.WhichOneof("frame") == kind:
            return getattr(response, kind)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, options: MockOptions, truth: TruthLog | None = None
) -> AsyncIterator[Ranks]:
    group = MockGroup(options, TOKENIZER, truth)
    await group.start([f"unix:{folder}/{rank}" for rank in range(options.rank_count)])
    local = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(each, options=local) for each in group.addresses]
    try:
        yield Ranks(channels)
    finally:
        for channel in channels:
            await channel.close()
        await group.stop()


def with_ranks(
    folder: Path,
    options: MockOptions,
    test: Callable[[Ranks], Awaitable[None]],
    truth: TruthLog | None = None,
) -> None:
    async def whole() -> None:
        async with serving(folder, options, truth) as ranks:
            await test(ranks)

    asyncio.run(whole())


ADMIT = {"admits": [admit(0)], "block_grants": [grant(0, 0, 1, 2)]}


def test_a_rank_describes_itself_with_its_tokenizer(tmp_path: Path) -> None:
    async def test(ranks: Ranks) -> None:
        said = await ranks.describe(1)
        assert (said.rank, said.tensor_parallel_size, said.slot_count) == (1, 2, 4)
        assert (said.block_count, said.blocks_per_sequence, said.steps_per_lease) == (32, 8, 8)
        assert said.tokenizer_hash == hashlib.sha256(said.tokenizer_json).hexdigest()

    with_ranks(tmp_path, replace(SMALL, rank_count=2), test)


def test_without_step_times_a_lease_is_one_result(tmp_path: Path) -> None:
    async def test(ranks: Ranks) -> None:
        call = await ranks.open()
        await ranks.plan(call, 1, **ADMIT, rows=rows((0, 3, 1, 48)), num_steps=8)
        result = await next_frame(call, "result")
        assert (result.first_step, result.steps_run, result.final) == (0, 8, True)
        assert list(np.frombuffer(result.token_ids, "<u4")) == first_ids(8)

    with_ranks(tmp_path, SMALL, test)


def test_with_step_times_every_step_is_a_result_in_its_time(tmp_path: Path) -> None:
    options = replace(SMALL, times=StepTimes(base_seconds=0.05))
    truth = TruthLog(tmp_path / "truth")

    async def test(ranks: Ranks) -> None:
        call = await ranks.open()
        begin = time.monotonic()
        await ranks.plan(call, 1, **ADMIT, rows=rows((0, 3, 1, 48)), num_steps=4)
        results = [await next_frame(call, "result") for _ in range(4)]
        assert time.monotonic() - begin >= 0.2
        assert [result.first_step for result in results] == [0, 1, 2, 3]
        assert [result.final for result in results] == [False, False, False, True]
        assert {result.device_time_us for result in results} == {50_000}

    with_ranks(tmp_path, options, test, truth)
    lines = [json.loads(line) for line in (tmp_path / "truth").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["admit", *["tokens"] * 4]
    assert lines[0]["prompt_crc32"] == checksum(PROMPT)
    assert [line["counts"] for line in lines[1:]] == [[1]] * 4


def test_an_interrupt_ends_a_lease_early(tmp_path: Path) -> None:
    options = replace(SMALL, steps_per_lease=1000, times=StepTimes(base_seconds=0.02))

    async def test(ranks: Ranks) -> None:
        call = await ranks.open()
        fields: dict[str, Any] = {**ADMIT, "num_steps": 1000, "interruptible": True}
        await ranks.plan(call, 1, **fields, rows=rows((0, 3, 1, 48)))
        await next_frame(call, "result")
        cut = shard_pb2.Interrupt(plan_number=1)
        await call.write(shard_pb2.ExecuteRequest(interrupt=cut).SerializeToString())
        while not (result := await next_frame(call, "result")).final:
            pass
        assert result.first_step < 999

    with_ranks(tmp_path, options, test)


def test_two_ranks_say_the_same_and_only_the_first_says_ids(tmp_path: Path) -> None:
    async def test(ranks: Ranks) -> None:
        calls = [await ranks.open(0), await ranks.open(1)]
        for call in calls:
            await ranks.plan(call, 1, **ADMIT, rows=rows((0, 3, 1, 48)), num_steps=8)
        accepted = [await next_frame(call, "accepted") for call in calls]
        results = [await next_frame(call, "result") for call in calls]
        assert accepted[0] == accepted[1] and results[0].digest == results[1].digest
        assert len(results[0].token_ids) == 32 and not results[1].token_ids

    with_ranks(tmp_path, replace(SMALL, rank_count=2), test)


def test_a_broken_rule_is_an_error_and_the_next_life_has_a_greater_epoch(tmp_path: Path) -> None:
    async def test(ranks: Ranks) -> None:
        before = await ranks.describe()
        call = await ranks.open()
        await ranks.plan(call, 1, rows=rows((0, 3, 1, 48)))
        error = await next_frame(call, "error")
        assert "slot 0 is empty" in error.message and error.plan_number == 1
        with pytest.raises(grpc.aio.AioRpcError, match="slot 0 is empty"):
            await next_frame(call, "result")
        assert (await ranks.describe()).epoch > before.epoch
        again = await ranks.open()
        await ranks.plan(again, 1, **ADMIT, rows=rows((0, 3, 1, 48)))
        assert (await next_frame(again, "result")).final

    with_ranks(tmp_path, SMALL, test)


def test_sequences_fail_alone_as_asked(tmp_path: Path) -> None:
    async def test(ranks: Ranks) -> None:
        call = await ranks.open()
        await ranks.plan(call, 1, **ADMIT, rows=rows((0, 3, 1, 48)))
        assert (await next_frame(call, "error")).sequence == 1
        assert (await next_frame(call, "result")).final

    with_ranks(tmp_path, replace(SMALL, failures=Failures(fail_share=1.0)), test)


def test_a_router_serves_on_it_with_two_ranks(tmp_path: Path) -> None:
    with mock_service(tmp_path, "--ranks=2", "--slots=4") as service:
        with Client(service.target) as client:
            done = client.complete("x = 1", max_new_tokens=100, ignore_eos=True, logprobs=2)
            stopped = client.complete("x = 1", max_new_tokens=100, stop=[done.text[40:44]])
        truth = service.stop()
    assert len(done.token_ids) == 100 and len(done.text) == 100
    assert done.logprobs is not None and len(done.logprobs) == 100
    assert stopped.text == done.text[: done.text.index(done.text[40:44])]
    [sequence] = truth.values()  # the second has the same prompt, and takes the first one's place
    assert sequence.prompt_tokens == 5


def test_it_dies_when_asked_to(tmp_path: Path) -> None:
    with mock_service(tmp_path, "--step-base=10ms", "--die-after=100ms") as service:
        with Client(service.target) as client:
            stream = client.stream("x", max_new_tokens=2000, ignore_eos=True, timeout=60)
            assert next(iter(stream)).text
            assert service.shard.wait(60) == 1


def test_a_second_one_on_the_same_socket_is_refused(tmp_path: Path) -> None:
    words = ["santacoder_client.loadtest", "mock-shard", f"--listen=unix:{tmp_path}/shard"]
    with started(words), pytest.raises(AssertionError), started(words):
        pass
