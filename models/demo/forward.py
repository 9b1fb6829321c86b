"""The model's forward pass over packed rows, and its loss: transformers' modules, our attention.

transformers' own forward knows one text a row. Here a row holds many segments, and each token sees
its own segment and the beginning of its document's first one (rows.py). progress.py measures with
transformers' forward, so a difference between the two would show at once.
"""

from __future__ import annotations

from typing import Any

import torch
from rows import DOCUMENT, FORK, IDS, ROW_TOKENS, SEGMENT, WEIGHTS
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import GPTBigCodeForCausalLM

# Half of all tokens are a branch's suffix, which is read and not learned: no logits for those.
SCORED_SHARE = 0.6


def attention_mask(rows: torch.Tensor, make: Any = create_block_mask) -> BlockMask:
    """Who sees whom in rows [count, 5, ROW_TOKENS]."""
    segment, document, fork = (rows[:, line].int() for line in (SEGMENT, DOCUMENT, FORK))

    def sees(
        row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        in_segment = (key >= segment[row, query]) & (key <= query)
        return in_segment | ((key >= document[row, query]) & (key < fork[row, query]))

    mask: BlockMask = make(sees, rows.shape[0], None, ROW_TOKENS, ROW_TOKENS, device=rows.device)
    return mask


def block_output(block: Any, hidden: torch.Tensor, mask: BlockMask) -> torch.Tensor:
    """One layer: queries of several heads, one head of keys and values."""
    attention = block.attn
    size, head_size = attention.embed_dim, attention.head_dim
    mixed = attention.c_attn(block.ln_1(hidden))
    queries, keys, values = mixed.split([size, head_size, head_size], dim=2)
    attended = flex_attention(
        queries.unflatten(2, (-1, head_size)).transpose(1, 2),
        keys.unsqueeze(1),
        values.unsqueeze(1),
        block_mask=mask,
        enable_gqa=True,
    )
    assert isinstance(attended, torch.Tensor)
    projected = attention.c_proj(attended.transpose(1, 2).flatten(2))
    hidden = hidden + attention.resid_dropout(projected)
    output: torch.Tensor = hidden + block.mlp(block.ln_2(hidden))
    return output


def final_hidden(model: GPTBigCodeForCausalLM, rows: torch.Tensor, mask: BlockMask) -> torch.Tensor:
    """The last layer's output, positions counted from each document's first token."""
    segment, document, fork = (rows[:, line].int() for line in (SEGMENT, DOCUMENT, FORK))
    places = torch.arange(ROW_TOKENS, device=rows.device, dtype=torch.int32)
    body: Any = model.transformer
    hidden = body.wte(rows[:, IDS].int()) + body.wpe(places - segment + fork - document)
    hidden = body.drop(hidden)
    for block in body.h:
        hidden = block_output(block, hidden, mask)
    output: torch.Tensor = body.ln_f(hidden)
    return output


def loss_of(model: GPTBigCodeForCausalLM, rows: torch.Tensor, mask: BlockMask) -> torch.Tensor:
    """Weighted mean of next-token cross entropy, over the tokens of the greatest weights."""
    hidden = final_hidden(model, rows, mask)[:, :-1].flatten(0, 1)
    targets, weights = rows[:, IDS, 1:].flatten().long(), rows[:, WEIGHTS, 1:].flatten()
    count = int(SCORED_SHARE * weights.numel())
    scored = torch.argsort(weights, descending=True)[:count]
    logits = model.lm_head(hidden[scored])
    losses = torch.nn.functional.cross_entropy(logits.float(), targets[scored], reduction="none")
    weights = weights[scored].float()
    return (losses * weights).sum() / weights.sum()
