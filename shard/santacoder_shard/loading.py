"""Turns a rank's configuration into a loaded engine and the rank's description of itself.

Runs on the model's thread. Knows no gRPC and no process; options that cannot work are refused here
once the machine and the model are known.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from santacoder.shard.v1 import shard_pb2
from santacoder_shard.checkpoint import Checkpoint, open_checkpoint
from santacoder_shard.config import (
    DEFAULT_MAX_RUNNING,
    DEFAULT_TOKENS_PER_STEP,
    EngineOptions,
    ShardConfig,
)
from santacoder_shard.description import Build, describe
from santacoder_shard.devices import choose_device, kv_budget_bytes
from santacoder_shard.engine import Engine, EngineConfig
from santacoder_shard.errors import ParallelSizeError, UnusableOption
from santacoder_shard.hub import ResolvedModel, resolve
from santacoder_shard.kv_cache import BLOCK_SIZE, block_bytes, block_count_within
from santacoder_shard.log import Logger
from santacoder_shard.model import SantaCoder
from santacoder_shard.numerics import numerics_id
from santacoder_shard.parallel import Parallel
from santacoder_shard.weights import choose_dtype, load_model
from santacoder_shard.worker import PlanRunner

if TYPE_CHECKING:
    from santacoder_shard.armed import FaultPoints

DEFAULT_KV_CACHE_BYTES = 4 << 30
# Ranks load at different speeds; a peer that dies is noticed at once, a hang by the step deadline.
COLLECTIVE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class LoadedRank:
    """A rank that can run plans."""

    engine: PlanRunner
    description: shard_pb2.DescribeResponse


def load_rank(config: ShardConfig, log: Logger, points: FaultPoints | None = None) -> LoadedRank:
    """Load this rank's part of the model and meet the other ranks. `points` only in tests.

    Raises UnusableOption, ParallelSizeError or CheckpointError, each with one line.
    """
    started_at = time.monotonic()
    size = config.tensor_parallel_size
    # Set on the thread that will run the model: torch keeps it per thread.
    torch.set_num_threads(config.engine.thread_count or _default_thread_count(size))
    source = _find_model(config)
    checkpoint = open_checkpoint(source.path, source.name, source.revision, config.verified_as)
    if refusal := checkpoint.geometry.refusal(size):
        raise ParallelSizeError(f"--{refusal}")
    device, obstacle = choose_device(config.engine.device, config.rank, size, checkpoint.geometry)
    if obstacle is not None:
        log.warning("the GPU is not used", reason=obstacle)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dtype = choose_dtype(config.engine.dtype, device.type, checkpoint.stored_dtype)
    # A wrong option is refused before the weights are read, but on a GPU they tell what is left.
    engine_config = None
    if device.type == "cpu":
        budget = DEFAULT_KV_CACHE_BYTES
        engine_config = _engine_config(config.engine, checkpoint, size, dtype, device, budget)
    opened_at = time.monotonic()
    model = load_model(checkpoint, config.rank, size, dtype, device)
    read_at = time.monotonic()
    parallel = _join(config, device)
    if points is not None:
        parallel = points.arm_parallel(parallel)
    if engine_config is None:
        # Ranks give the router one count of blocks.
        budget = parallel.least(kv_budget_bytes(device), device)
        engine_config = _engine_config(config.engine, checkpoint, size, dtype, device, budget)
    build = Build(
        model_commit=source.commit,
        dtype=str(dtype).removeprefix("torch."),
        numerics_id=numerics_id(model),
        package_version=version("santacoder-serving"),
    )
    engine = _make_engine(config, model, engine_config, device, parallel, log)
    if points is not None:
        engine = points.arm_engine(engine, model)
    log.info(
        "model loaded",
        seconds=round(time.monotonic() - started_at, 2),
        weights_seconds=round(read_at - opened_at, 2),
        # Memory for the cache; on a GPU kernels and graphs too.
        engine_seconds=round(time.monotonic() - read_at, 2),
        model=source.name,
        layout=checkpoint.layout.letter,
        numerics=build.numerics_id,
        rank=config.rank,
        tp=size,
        blocks=engine_config.block_count,
        slots=engine_config.slot_count,
    )
    return LoadedRank(engine, describe(config, checkpoint, engine_config, build))


def _default_thread_count(size: int) -> int:
    """The cores this process may use, divided by the ranks; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // size)


def _join(config: ShardConfig, device: torch.device) -> Parallel:
    if config.rendezvous is None:
        return Parallel()
    size = config.tensor_parallel_size
    return Parallel.join(config.rank, size, config.rendezvous, COLLECTIVE_SECONDS, device)


def _make_engine(
    config: ShardConfig,
    model: SantaCoder,
    engine_config: EngineConfig,
    device: torch.device,
    parallel: Parallel,
    log: Logger,
) -> PlanRunner:
    if device.type == "cpu":
        return Engine(model, parallel, engine_config, partial(_note_row_failure, log))
    # Here, because a CPU rank needs neither Triton nor a compiler.
    from santacoder_shard.gpu_engine import GpuEngine

    return GpuEngine(model, engine_config, device, parallel)


def _note_row_failure(log: Logger, sequence: int, failure: Exception) -> None:
    log.error("a row could not be sampled", sequence=sequence, exc_info=failure)


def _find_model(config: ShardConfig) -> ResolvedModel:
    if config.model_name is None:
        return resolve(config.model, config.revision)
    return ResolvedModel(
        path=Path(config.model),
        name=config.model_name,
        revision=config.revision or "",
        commit=config.model_commit,
    )


def _engine_config(
    options: EngineOptions,
    checkpoint: Checkpoint,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_budget_bytes: int,
) -> EngineConfig:
    geometry = checkpoint.geometry
    slot_count = options.max_running or DEFAULT_MAX_RUNNING[device.type]
    blocks_per_sequence = -(-geometry.context_token_count // BLOCK_SIZE)
    if options.kv_cache_tokens is not None:
        block_count = options.kv_cache_tokens // BLOCK_SIZE
    elif options.kv_cache_bytes is not None:
        block_count = block_count_within(options.kv_cache_bytes, geometry, size, dtype)
    else:
        # On a CPU enough for every sequence at full length, unless that is very much; on a GPU all
        # that is left, since what is cached need not be computed again.
        affordable = block_count_within(kv_budget_bytes, geometry, size, dtype)
        wanted = slot_count * blocks_per_sequence if device.type == "cpu" else affordable
        block_count = max(blocks_per_sequence, min(wanted, affordable))
    if block_count < blocks_per_sequence:
        least_tokens = blocks_per_sequence * BLOCK_SIZE
        least_bytes = (blocks_per_sequence + 1) * block_bytes(geometry, size, dtype)
        raise UnusableOption(
            "--kv-cache-tokens or --kv-cache-bytes: too small for one sequence of full length;"
            f" got {block_count * BLOCK_SIZE} tokens; allowed {least_tokens} tokens"
            f" ({least_bytes} bytes on a rank) and above"
        )
    return EngineConfig(
        slot_count=slot_count,
        block_count=block_count,
        blocks_per_sequence=blocks_per_sequence,
        tokens_per_step=options.tokens_per_step or DEFAULT_TOKENS_PER_STEP[device.type],
        token_count=checkpoint.token_count,
        end_of_text_id=checkpoint.end_of_text_id,
        sentinel_ids=checkpoint.sentinel_ids,
    )
