"""Makes small random checkpoints in every layout, and loads them into transformers as the judge.

It knows the layouts on its own and refuses to use the shard's loader: neither hides the other's
faults.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from checkpoint_layouts import (
    CONV1D,
    LAYOUTS,
    MULTI_HEAD,
    Layout,
    Tensors,
    blocks_to_interleaved,
    express,
    public_config,
    random_canonical,
)
from safetensors.torch import load, save_file
from small_tokenizer import TokenizerFamily, tokenizer_json

__all__ = [
    "CONV1D",
    "LAYOUTS",
    "Layout",
    "Tensors",
    "TokenizerFamily",
    "canonical_tensors",
    "gpt2_oracle",
    "make_checkpoint",
    "oracle",
    "read_tensors",
    "tokenizer_json",
    "write_tensors",
]


def make_checkpoint(
    folder: Path,
    layout: Layout = "b",
    *,
    seed: int = 0,
    heads: int = 4,
    layers: int = 2,
    embd: int = 64,
    inner: int | None = None,
    positions: int = 128,
    vocabulary: int = 400,
    shards: int = 1,
    file_format: Literal["safetensors", "bin"] = "safetensors",
    activation: str | None = None,
    dtype: torch.dtype = torch.float32,
    family: TokenizerFamily | None = None,
    head: Literal["wte", "lm_head", "both"] | None = None,
) -> Path:
    """Write config.json, tokenizer.json and weights of `layout` into `folder`, and return it.

    `vocabulary` counts the embedding's rows and leaves dummy rows after the tokenizer's last id.
    `head` names which of the tied tensors are stored; by default what the layout's public
    checkpoint stores. Equal arguments give equal weights, and the layouts of one attention kind
    hold the same function for the same seed, sizes and activation.
    """
    inner = inner or 4 * embd
    canonical = random_canonical(
        seed,
        heads,
        1 if layout not in MULTI_HEAD else heads,
        layers,
        embd,
        inner,
        positions,
        vocabulary,
    )
    tensors = express(canonical, layout, layers, heads, positions)
    tensors = _with_head(tensors, head or ("both" if layout in ("a", "a'", "c0") else "wte"))
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    if file_format == "bin":
        # A tied pair is one storage in the public pickles.
        _tie(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    config = public_config(layout, heads, layers, embd, inner, positions, vocabulary, activation)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tensors(folder, tensors, shards=shards, file_format=file_format)
    family = family or ("starcoder" if layout == "d" else "santacoder")
    (folder / "tokenizer.json").write_bytes(tokenizer_json(family))
    return folder


def write_tensors(
    folder: Path,
    tensors: Tensors,
    *,
    shards: int = 1,
    file_format: Literal["safetensors", "bin"] = "safetensors",
) -> None:
    """Write weight files as transformers names them; above 1 shard, several and their index."""
    stem, suffix = {
        "safetensors": ("model", ".safetensors"),
        "bin": ("pytorch_model", ".bin"),
    }[file_format]
    if shards == 1:
        _save(folder / f"{stem}{suffix}", tensors)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file_name = f"{stem}-{number + 1:05d}-of-{shards:05d}{suffix}"
        part = names[number::shards]
        _save(folder / file_name, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file_name)
    total_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index, indent=2))


def read_tensors(folder: Path) -> Tensors:
    """Every tensor stored in the folder's weight files, by its stored name."""
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        # From bytes: tensors mapped from a file would change when a test rewrites it.
        tensors |= load(path.read_bytes())
    for path in sorted(folder.glob("*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def canonical_tensors(folder: Path) -> Tensors:
    """The folder's tensors in GPTBigCode names and order, fp32, `lm_head` left out."""
    config = json.loads((folder / "config.json").read_text())
    heads, embd = config["n_head"], config["n_embd"]
    stored = {name: tensor for name, tensor in read_tensors(folder).items() if not _is_buffer(name)}
    stored.setdefault("transformer.wte.weight", stored.get("lm_head.weight", torch.empty(0)))
    stored.pop("lm_head.weight", None)
    conv1d = stored["transformer.h.0.mlp.c_fc.weight"].shape[0] == embd
    result: Tensors = {}
    for name, tensor in stored.items():
        value = tensor.float()
        if conv1d and value.dim() == 2 and ".h." in name:
            value = value.T.contiguous()
        result[name.replace("attn.attn.", "attn.c_attn.")] = value
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}.attn."
        for kind in ("weight", "bias"):
            if f"{prefix}q_attn.{kind}" in result:
                parts = [result.pop(f"{prefix}{part}_attn.{kind}") for part in ("q", "kv")]
                result[f"{prefix}c_attn.{kind}"] = torch.cat(parts)
            elif config["model_type"] == "gpt2" and config["attention_head_type"] == "multihead":
                fused = result[f"{prefix}c_attn.{kind}"]
                result[f"{prefix}c_attn.{kind}"] = blocks_to_interleaved(fused, heads)
    return result


def oracle(folder: Path) -> Any:
    """transformers' GPTBigCodeForCausalLM on the folder's weights: fp32, eager attention, eval."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    config = json.loads((folder / "config.json").read_text())
    multi_query = config.get("multi_query", config.get("attention_head_type") == "multiquery")
    model = GPTBigCodeForCausalLM(
        GPTBigCodeConfig(
            **_config_fields(config),
            multi_query=multi_query,
        )
    )
    _fill(model, canonical_tensors(folder))
    return model


def gpt2_oracle(folder: Path) -> Any:
    """transformers' GPT2LMHeadModel, which reads layout a' as it is stored: its second judge."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = json.loads((folder / "config.json").read_text())
    model = GPT2LMHeadModel(GPT2Config(**_config_fields(config)))
    stored = {
        name: tensor.float()
        for name, tensor in read_tensors(folder).items()
        if not _is_buffer(name)
    }
    stored.pop("lm_head.weight", None)
    _fill(model, stored)
    return model


def _config_fields(config: dict[str, Any]) -> dict[str, Any]:
    names = (
        "n_layer",
        "n_head",
        "n_embd",
        "n_inner",
        "n_positions",
        "vocab_size",
        "layer_norm_epsilon",
    )
    activation = config["activation_function"].replace("gelu_fast", "gelu_pytorch_tanh")
    return {name: config[name] for name in names} | {
        "activation_function": activation,
        "attn_implementation": "eager",
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": torch.float32,
    }


def _fill(model: Any, tensors: Tensors) -> None:
    report = model.load_state_dict(tensors, strict=False)
    if report.missing_keys not in ([], ["lm_head.weight"]) or report.unexpected_keys:
        raise ValueError(f"the oracle does not fit: {report}")
    model.tie_weights()
    model.eval()


def _with_head(tensors: Tensors, head: str) -> Tensors:
    embedding = tensors["transformer.wte.weight"]
    result = dict(tensors)
    if head != "wte":
        result["lm_head.weight"] = embedding.clone()
    if head == "lm_head":
        del result["transformer.wte.weight"]
    return result


def _tie(tensors: Tensors) -> None:
    if {"lm_head.weight", "transformer.wte.weight"} <= set(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]


def _save(path: Path, tensors: Tensors) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def _is_buffer(name: str) -> bool:
    return name.endswith(".attn.masked_bias") or (
        name.endswith(".attn.bias") and not name.endswith(".attn.attn.bias")
    )
