"""A load straight at a shard group: the plans it makes, and what comes of them."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.__main__ import main
from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.shard_batch import Answer, Batch, Planned
from santacoder_client.loadtest.shard_target import ShardTarget
from santacoder_client.loadtest.target import Security, Target

Fact = TypeVar("Fact")
GROUP = shard_pb2.DescribeResponse(
    epoch=7,
    slot_count=2,
    block_count=8,
    block_size=16,
    tokens_per_step=32,
    steps_per_lease=4,
    context_token_count=128,
)


def words(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def asked(batch: Batch, prompt_count: int, new_count: int) -> Answer:
    ids = struct.pack(f"<{prompt_count}I", *range(prompt_count))
    admit = shard_pb2.Admit(
        token_ids=ids, prompt_length=prompt_count, remaining_max_tokens=new_count
    )
    answer = Answer(admit)
    batch.add(answer)
    return answer


def next_plan(batch: Batch) -> Planned:
    planned = batch.plan()
    assert planned is not None
    return planned


def run(batch: Batch, planned: Planned) -> list[tuple[Answer, int]]:
    """What a shard would answer that gives every sampling row an id a step."""
    plan = planned.message
    counts = [plan.num_steps if sample else 0 for sample in plan.rows.samples]
    states = [
        shard_pb2.ROW_STATE_LENGTH if count == answer.left_count else shard_pb2.ROW_STATE_RUNNING
        for answer, count in zip(planned.rows, counts, strict=True)
    ]
    result = shard_pb2.StepResult(
        plan_number=plan.number,
        steps_run=plan.num_steps,
        final=True,
        row_token_counts=struct.pack(f"<{len(counts)}I", *counts),
        row_states=bytes(states),
    )
    return batch.apply(planned, result)


def test_nothing_to_do_is_no_plan() -> None:
    assert Batch(GROUP).plan() is None


def test_a_prompt_is_run_in_parts_that_fit_a_step_and_sampled_at_its_end() -> None:
    batch = Batch(GROUP)
    asked(batch, prompt_count=40, new_count=2)
    first, second = next_plan(batch), next_plan(batch)
    assert words(first.message.rows.token_counts) == [32]
    assert first.message.rows.samples == b"\0" and first.message.num_steps == 1
    assert words(second.message.rows.token_counts) == [8]
    assert second.message.rows.samples == b"\1"
    assert [plan.message.number for plan in (first, second)] == [1, 2]
    assert len(first.message.admits) == 1 and not second.message.admits


def test_blocks_for_the_longest_answer_are_granted_at_once_and_come_back() -> None:
    batch = Batch(GROUP)
    answers = [asked(batch, prompt_count=16, new_count=33) for _ in range(3)]
    planned = next_plan(batch)
    assert planned.admitted == tuple(answers[:2]), "the third finds no slot"
    grants = [words(grant.block_ids) for grant in planned.message.block_grants]
    assert [len(grant) for grant in grants] == [4, 4]
    assert len({block for grant in grants for block in grant}) == 8
    assert words(planned.message.rows.kv_token_limits) == [64, 64]
    batch.cancel(answers[0])
    after = next_plan(batch)
    assert [retire.sequence for retire in after.message.retires] == [1]
    assert after.admitted == (answers[2],)
    assert words(after.message.block_grants[0].block_ids) != []


def test_a_lease_ends_where_the_first_answer_does() -> None:
    batch = Batch(GROUP)
    asked(batch, prompt_count=4, new_count=3)
    asked(batch, prompt_count=4, new_count=9)
    steps = []
    given = 0
    while (planned := batch.plan()) is not None:
        steps.append(planned.message.num_steps)
        given += sum(count for _, count in run(batch, planned))
    assert given == 12
    assert steps == [3, 4, 2, 1], "the last one only retires"


def test_the_id_that_ends_a_text_is_no_token() -> None:
    batch = Batch(GROUP)
    answer = asked(batch, prompt_count=4, new_count=9)
    planned = next_plan(batch)
    result = shard_pb2.StepResult(
        row_token_counts=struct.pack("<I", 3),
        row_states=bytes([shard_pb2.ROW_STATE_END_OF_TEXT]),
    )
    assert batch.apply(planned, result) == [(answer, 2)]
    assert answer.is_over


def test_whoever_leaves_the_queue_takes_nobodys_place() -> None:
    batch = Batch(GROUP)
    answers = [asked(batch, prompt_count=4, new_count=4) for _ in range(4)]
    next_plan(batch)
    assert batch.cancel(answers[2])
    assert not batch.cancel(answers[0])
    planned = next_plan(batch)
    assert planned.retired == (answers[0],) and planned.admitted == (answers[3],)


@contextmanager
def mock_shard(*flags: str) -> Iterator[str]:
    """The addresses of a simulated group in a process of its own."""
    command = [sys.executable, "-m", "santacoder_client.loadtest", "mock-shard", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().removeprefix("ready shards=")
        finally:
            process.kill()


def with_group(
    shards: str, wishes: Wishes, scenario: Callable[[ShardTarget], Awaitable[Fact]]
) -> Fact:
    async def play() -> Fact:
        addresses = tuple(shards.split(","))
        group = ShardTarget(Target(f"shard:{shards}", "shard", addresses), Security(), wishes)
        await group.open()
        try:
            return await scenario(group)
        finally:
            await group.close()

    return asyncio.run(play())


def prompt(new_count: int = 8) -> Prompt:
    options = {"ignore_eos": True}
    return Prompt(
        "token_ids", token_ids=tuple(range(60, 80)), max_new_tokens=new_count, options=options
    )


def new_record(index: int) -> RequestRecord:
    return RequestRecord(index, "group", "token_ids", time.monotonic())


def test_every_request_gets_its_tokens_from_a_group_of_two_ranks() -> None:
    async def scenario(group: ShardTarget) -> list[RequestRecord]:
        records = [new_record(index) for index in range(20)]
        await asyncio.gather(*(group.send(prompt(), each, time.monotonic) for each in records))
        return records

    with mock_shard("--ranks", "2", "--slots", "4", "--step-base", "1ms") as shards:
        records = with_group(shards, Wishes(), scenario)
    for record in records:
        assert (record.outcome, record.status) == (Outcome.OK, "OK")
        assert record.completion_token_count == sum(c.token_count for c in record.chunks) == 8
        assert record.prompt_token_count == 20
        assert record.dispatched_at is not None and record.accepted_at is not None
        assert record.finished_at is not None and record.first_token_at is not None
        assert record.dispatched_at <= record.accepted_at <= record.first_token_at
        assert record.finished_at == record.chunks[-1].at_seconds


def test_a_cancel_is_confirmed_by_the_group_and_what_is_not_for_it_is_refused() -> None:
    async def scenario(group: ShardTarget) -> list[RequestRecord]:
        records = [new_record(index) for index in range(4)]
        text = Prompt("text", text="def f")
        running = asyncio.create_task(group.send(prompt(1000), records[0], time.monotonic))
        refused = [
            group.send(text, records[1], time.monotonic),
            group.send(prompt(100_000), records[2], time.monotonic),
        ]
        await asyncio.gather(running, *refused)
        cut = asyncio.create_task(group.send(prompt(1000), records[3], time.monotonic))
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.wait([cut])
        return records

    wishes = Wishes(cancel_share=1.0, cancel_after_seconds=0.1)
    with mock_shard("--step-base", "10ms") as shards:
        cancelled, text, too_long, cut = with_group(shards, wishes, scenario)
    assert cancelled.outcome is Outcome.CANCELLED and cancelled.completion_token_count > 0
    assert cancelled.finished_at is not None and cancelled.cancelled_at is not None
    assert cancelled.finished_at >= cancelled.cancelled_at
    for record in (text, too_long):
        assert (record.status, record.reason) == ("INVALID_ARGUMENT", "NOT_FOR_A_SHARD")
    assert (cut.outcome, cut.reason) == (Outcome.CANCELLED, END_OF_RUN)


def test_a_group_that_dies_fails_what_runs_and_what_comes() -> None:
    async def scenario(group: ShardTarget) -> list[RequestRecord]:
        records = [new_record(index) for index in range(2)]
        await group.send(prompt(1900), records[0], time.monotonic)
        await group.send(prompt(), records[1], time.monotonic)
        return records

    with mock_shard("--step-base", "20ms", "--die-after", "200ms") as shards:
        for record in with_group(shards, Wishes(), scenario):
            assert (record.outcome, record.status) == (Outcome.FAILED, "UNAVAILABLE")


def test_addresses_out_of_order_make_no_group() -> None:
    async def scenario(group: ShardTarget) -> None: ...

    with mock_shard("--ranks", "2") as shards:
        swapped = ",".join(reversed(shards.split(",")))
        with pytest.raises(Unreachable, match="no group"):
            with_group(swapped, Wishes(), scenario)


def test_run_loads_a_group_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    flags = "--rate 40 --warm-up 0s --duration 500ms --cool-down 0s --quiet --new-tokens 4"
    with mock_shard() as shards:
        target = ["--target", f"shard:{shards}", "--output", str(output)]
        assert main(["run", *flags.split(), *target]) == 0
        fim = [*target, "--force", "--data", "fim", "--files", str(Path(__file__).parent)]
        assert main(["run", *flags.split(), *fim]) == 2
    assert "text ends at the router" in capsys.readouterr().err
    result = json.loads(output.read_text())
    assert result["targets"][0]["mode"] == "shard"
    assert result["outcomes"]["ok"] > 0 and result["outcomes"]["failed"] == 0
