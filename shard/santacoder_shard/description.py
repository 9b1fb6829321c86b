"""What a rank says of itself when the router asks. Pure: from configuration and checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from santacoder.shard.v1 import shard_pb2
from santacoder_shard.checkpoint import Checkpoint
from santacoder_shard.codec import PROTOCOL_VERSION, pack_ids
from santacoder_shard.config import ShardConfig
from santacoder_shard.engine import EngineConfig
from santacoder_shard.kv_cache import BLOCK_SIZE

STEPS_PER_LEASE = 64
PLANS_IN_FLIGHT = 2
MAX_LOGPROBS = 20
MAX_STOP_IDS = 64
MAX_LOGIT_BIASES = 256


@dataclass(frozen=True, slots=True)
class Build:
    """What the model was loaded as, and by what."""

    model_commit: str
    """Resolved commit, or empty for a local folder."""
    dtype: str
    numerics_id: str
    """Equal ids give equal bits."""
    package_version: str


def describe(
    config: ShardConfig, checkpoint: Checkpoint, engine: EngineConfig, build: Build
) -> shard_pb2.DescribeResponse:
    """The whole description, tokenizer file included."""
    geometry = checkpoint.geometry
    return shard_pb2.DescribeResponse(
        protocol_version=PROTOCOL_VERSION,
        epoch=config.epoch,
        rank=config.rank,
        tensor_parallel_size=config.tensor_parallel_size,
        model_name=checkpoint.name,
        model_revision=build.model_commit,
        checkpoint_fingerprint=checkpoint.fingerprint,
        numerics_id=build.numerics_id,
        dtype=build.dtype,
        layer_count=geometry.layer_count,
        head_count=geometry.head_count,
        kv_head_count=geometry.kv_head_count,
        embedding_size=geometry.embedding_size,
        context_token_count=geometry.context_token_count,
        vocabulary_size=geometry.vocabulary_size,
        token_count=engine.token_count,
        end_of_text_id=engine.end_of_text_id,
        sentinel_ids=pack_ids(engine.sentinel_ids),
        block_size=BLOCK_SIZE,
        block_count=engine.block_count,
        slot_count=engine.slot_count,
        blocks_per_sequence=engine.blocks_per_sequence,
        tokens_per_step=engine.tokens_per_step,
        steps_per_lease=STEPS_PER_LEASE,
        plans_in_flight=PLANS_IN_FLIGHT,
        max_logprobs=MAX_LOGPROBS,
        max_stop_ids=MAX_STOP_IDS,
        max_logit_biases=MAX_LOGIT_BIASES,
        tokenizer_hash=hashlib.sha256(checkpoint.tokenizer_json).hexdigest(),
        tokenizer_json=checkpoint.tokenizer_json,
        fim_enabled=checkpoint.fim_supported and config.engine.fim,
        version=build.package_version,
    )
