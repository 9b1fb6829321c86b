"""What a simulated rank says it is. Pure."""

from __future__ import annotations

import hashlib
import struct
from importlib.metadata import PackageNotFoundError, version

from santacoder.shard.v1 import shard_pb2
from santacoder_client.loadtest.mock_shard.options import BLOCK_SIZE, MockOptions
from santacoder_client.loadtest.mock_shard.tokenizer_file import TokenizerFile

PROTOCOL_VERSION = 1
VOCABULARY_STEP = 64
"""Embeddings are padded to this."""


def describe(
    options: MockOptions, tokenizer: TokenizerFile, rank: int, epoch: int
) -> shard_pb2.DescribeResponse:
    """One rank's description, tokenizer included."""
    tokenizer_hash = hashlib.sha256(tokenizer.content).hexdigest()
    return shard_pb2.DescribeResponse(
        protocol_version=PROTOCOL_VERSION,
        epoch=epoch,
        rank=rank,
        tensor_parallel_size=options.rank_count,
        model_name="mock-shard",
        checkpoint_fingerprint=hashlib.sha256(b"mock" + tokenizer_hash.encode()).hexdigest(),
        numerics_id="mock",
        dtype="float32",
        layer_count=2,
        head_count=16,
        kv_head_count=1,
        embedding_size=2048,
        context_token_count=options.context_token_count,
        vocabulary_size=-(-tokenizer.token_count // VOCABULARY_STEP) * VOCABULARY_STEP,
        token_count=tokenizer.token_count,
        end_of_text_id=tokenizer.end_of_text_id,
        sentinel_ids=struct.pack(f"<{len(tokenizer.sentinel_ids)}I", *tokenizer.sentinel_ids),
        block_size=BLOCK_SIZE,
        block_count=options.kv_block_count,
        slot_count=options.slot_count,
        blocks_per_sequence=options.blocks_per_sequence,
        tokens_per_step=options.tokens_per_step,
        steps_per_lease=options.steps_per_lease,
        plans_in_flight=options.plans_in_flight,
        max_logprobs=20,
        max_stop_ids=64,
        max_logit_biases=256,
        tokenizer_hash=tokenizer_hash,
        tokenizer_json=tokenizer.content,
        fim_enabled=len(tokenizer.sentinel_ids) == 4,
        version=_version(),
    )


def _version() -> str:
    try:
        return version("santacoder-serving")
    except PackageNotFoundError:
        return "0"
