"""The checkpoint layouts as their public files have them: tensors, and configs with their traps."""

from __future__ import annotations

from typing import Any, Literal

import torch

Layout = Literal["a", "a'", "b", "b'", "c", "c0", "d"]
Tensors = dict[str, torch.Tensor]


LAYOUTS: tuple[Layout, ...] = ("a", "a'", "b", "b'", "c", "c0", "d")
GPT2_STYLE = ("a", "a'", "c", "c0")
MULTI_HEAD = ("a'", "b'")
CONV1D = ("a", "a'")


def random_canonical(
    seed: int,
    heads: int,
    kv_heads: int,
    layers: int,
    embd: int,
    inner: int,
    positions: int,
    vocabulary: int,
) -> Tensors:
    """Tensors in Linear layout with q, k and v as row blocks, heads in order inside each block."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 0.15, mean: float = 0.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * std + mean

    attention = embd + 2 * kv_heads * (embd // heads)
    tensors = {
        "transformer.wte.weight": normal(vocabulary, embd, std=0.2),
        "transformer.wpe.weight": normal(positions, embd, std=0.4),
        "transformer.ln_f.weight": normal(embd, mean=1.0),
        "transformer.ln_f.bias": normal(embd),
    }
    for layer in range(layers):
        prefix = f"transformer.h.{layer}."
        for name, rows, columns in (
            ("attn.c_attn", attention, embd),
            ("attn.c_proj", embd, embd),
            ("mlp.c_fc", inner, embd),
            ("mlp.c_proj", embd, inner),
        ):
            tensors[f"{prefix}{name}.weight"] = normal(rows, columns)
            tensors[f"{prefix}{name}.bias"] = normal(rows, std=0.3)
        for name in ("ln_1", "ln_2"):
            tensors[f"{prefix}{name}.weight"] = normal(embd, mean=1.0)
            tensors[f"{prefix}{name}.bias"] = normal(embd)
    return tensors


def express(canonical: Tensors, layout: Layout, layers: int, heads: int, positions: int) -> Tensors:
    """Rename, split, interleave and transpose the canonical tensors as `layout` stores them."""
    tensors = dict(canonical)
    for layer in range(layers):
        prefix = f"transformer.h.{layer}.attn."
        for kind in ("weight", "bias"):
            fused = tensors.pop(f"{prefix}c_attn.{kind}")
            query_rows = tensors[f"{prefix}c_proj.weight"].shape[1]
            if layout in ("a", "c0"):
                tensors[f"{prefix}q_attn.{kind}"] = fused[:query_rows].clone()
                tensors[f"{prefix}kv_attn.{kind}"] = fused[query_rows:].clone()
            elif layout == "c":
                tensors[f"{prefix}attn.{kind}"] = fused
            else:
                ordered = blocks_to_interleaved(fused, heads) if layout == "b'" else fused
                tensors[f"{prefix}c_attn.{kind}"] = ordered
        if layout in CONV1D:
            mask = torch.ones(positions, positions, dtype=torch.uint8).tril()
            tensors[f"{prefix}bias"] = mask.view(1, 1, positions, positions)
            tensors[f"{prefix}masked_bias"] = torch.tensor(-1e4)
    if layout in CONV1D:
        for name, tensor in tensors.items():
            if ".h." in name and tensor.dim() == 2:
                tensors[name] = tensor.T.contiguous()
    return tensors


def blocks_to_interleaved(fused: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows from q of all heads, k, v to q, k, v of each head."""
    rows = fused.shape[0]
    by_head = fused.view(3, heads, rows // (3 * heads), -1).transpose(0, 1)
    return by_head.reshape(fused.shape)


def public_config(
    layout: Layout,
    heads: int,
    layers: int,
    embd: int,
    inner: int,
    positions: int,
    vocabulary: int,
    activation: str | None,
) -> dict[str, Any]:
    """config.json as the layout's public checkpoint has it, its bad end-of-text id included."""
    config: dict[str, Any] = {
        "n_layer": layers,
        "n_head": heads,
        "n_embd": embd,
        "n_inner": inner,
        "n_positions": positions,
        "vocab_size": vocabulary,
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    multi_head = layout in MULTI_HEAD
    if layout in GPT2_STYLE:
        return config | {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadCustomModel"],
            "attention_head_type": "multihead" if multi_head else "multiquery",
            "activation_function": activation or "gelu_fast",
            "auto_map": {
                "AutoConfig": "configuration_gpt2_mq.GPT2CustomConfig",
                "AutoModelForCausalLM": "modeling_gpt2_mq.GPT2LMHeadCustomModel",
            },
            "bos_token_id": 50256,
            "eos_token_id": 50256,
            "reorder_and_upcast_attn": False,
            "scale_attn_by_inverse_layer_idx": False,
            "torch_dtype": "float32",
        }
    return config | {
        "model_type": "gpt_bigcode",
        "architectures": ["GPTBigCodeForCausalLM"],
        "multi_query": not multi_head,
        "activation_function": activation or ("gelu" if layout == "d" else "gelu_pytorch_tanh"),
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
        "inference_runner": 0,
        "max_batch_size": None,
    }
