"""Writes a checkpoint of SantaCoder's real shape with random weights: layout b, one file a layer.
`python benchmarks/random_checkpoint.py FOLDER [--layers N] [--dtype float32|float16]`.

Speed does not depend on what the weights say, so no network is needed. Refuses to be a good model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TOKEN_COUNT = 49152
SPECIALS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
WEIGHT_DEVIATION = 0.02


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a multi-query model; as they stand, SantaCoder's own."""

    layer_count: int = 24
    head_count: int = 16
    embedding_size: int = 2048
    inner_size: int = 8192
    context_token_count: int = 2048
    vocabulary_size: int = 49280

    @property
    def head_size(self) -> int:
        return self.embedding_size // self.head_count


def ensure(folder: Path, shape: Shape, dtype: torch.dtype = torch.float32) -> Path:
    """Write the checkpoint unless one of this shape is there already; gives the folder back."""
    config = json.dumps(_config(shape, dtype), indent=2)
    config_file = folder / "config.json"
    if config_file.is_file() and config_file.read_text() == config:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_tokenizer().to_str())
    _write_weights(folder, shape, dtype)
    # Last, so that a folder with a config is a whole checkpoint.
    config_file.write_text(config)
    return folder


def _config(shape: Shape, dtype: torch.dtype) -> dict[str, object]:
    return {
        "model_type": "gpt_bigcode",
        "architectures": ["GPTBigCodeForCausalLM"],
        "multi_query": True,
        "n_layer": shape.layer_count,
        "n_head": shape.head_count,
        "n_embd": shape.embedding_size,
        "n_inner": shape.inner_size,
        "n_positions": shape.context_token_count,
        "vocab_size": shape.vocabulary_size,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _write_weights(folder: Path, shape: Shape, dtype: torch.dtype) -> None:
    names: dict[str, str] = {}
    for number, single in enumerate(_parts(shape), start=1):
        tensors = {name: tensor.to(dtype) for name, tensor in single.items()}
        file_name = f"model-{number:05d}-of-{shape.layer_count + 1:05d}.safetensors"
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
        names |= dict.fromkeys(tensors, file_name)
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _parts(shape: Shape) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    yield _outer_tensors(shape, generator)
    for layer in range(shape.layer_count):
        yield _layer_tensors(layer, shape, generator)


def _outer_tensors(shape: Shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    size = shape.embedding_size
    return {
        "transformer.wte.weight": _normal(generator, shape.vocabulary_size, size),
        "transformer.wpe.weight": _normal(generator, shape.context_token_count, size),
        "transformer.ln_f.weight": torch.ones(size),
        "transformer.ln_f.bias": torch.zeros(size),
    }


def _layer_tensors(layer: int, shape: Shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    size, inner = shape.embedding_size, shape.inner_size
    tensors: dict[str, torch.Tensor] = {}
    for name, rows, columns in (
        ("attn.c_attn", size + 2 * shape.head_size, size),
        ("attn.c_proj", size, size),
        ("mlp.c_fc", inner, size),
        ("mlp.c_proj", size, inner),
    ):
        tensors[f"{name}.weight"] = _normal(generator, rows, columns)
        tensors[f"{name}.bias"] = _normal(generator, rows)
    for name in ("ln_1", "ln_2"):
        tensors[f"{name}.weight"] = torch.ones(size)
        tensors[f"{name}.bias"] = torch.zeros(size)
    return {f"transformer.h.{layer}.{name}": tensor for name, tensor in tensors.items()}


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * WEIGHT_DEVIATION


def _tokenizer() -> Tokenizer:
    """A byte-level BPE of SantaCoder's size: the bytes, then words of two and three characters."""
    letters = string.ascii_lowercase + string.digits + "_"
    words = [left + right for left, right in itertools.product(letters, repeat=2)]
    words += ["".join(triple) for triple in itertools.product(letters, repeat=3)]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = words[: TOKEN_COUNT - len(SPECIALS) - len(symbols)]
    vocabulary = {token: number for number, token in enumerate([*symbols, *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(word[:-1], word[-1]) for word in words]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIALS]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random checkpoint of the real shape.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=Shape().layer_count)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    arguments = parser.parse_args()
    shape = Shape(layer_count=arguments.layers)
    print(ensure(arguments.folder, shape, getattr(torch, arguments.dtype)))


if __name__ == "__main__":
    main()
