"""Opens a checkpoint folder: everything a shard must know of it but the values of its weights.

A folder that gets through here has a known layout, every tensor in its right shape, and a tokenizer
that fits. It refuses to know ranks and devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from santacoder_shard import (
    layouts,
    manifest,
    model_config,
    stored_tensors,
    tokenizer_file,
    weight_files,
)
from santacoder_shard.errors import CheckpointError
from santacoder_shard.fingerprint import fingerprint
from santacoder_shard.geometry import Geometry
from santacoder_shard.layouts import Layout
from santacoder_shard.tensor_info import TensorInfo

# The branch whose training never showed the fill-in-the-middle tokens.
REVISION_WITHOUT_FIM = "no-fim"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked checkpoint; `load_model` reads its weights."""

    path: Path
    name: str
    """The hub id, or the folder's name."""
    revision: str
    """The branch, tag or commit asked for; empty for a local folder."""
    geometry: Geometry
    layout: Layout
    files: tuple[Path, ...]
    """The weight files."""
    tensors: Mapping[str, TensorInfo]
    """Every stored tensor by its stored name."""
    fingerprint: str
    """SHA-256 in hex; equal on every rank that sees the same files."""
    tokenizer_json: bytes
    """tokenizer.json, with the special tokens that an old revision lacks added."""
    token_count: int
    """Ids that exist; the embedding's rows from here on are padding."""
    end_of_text_id: int
    sentinel_ids: tuple[int, ...]
    """Prefix, suffix, middle, pad; empty if the tokenizer lacks any of them."""
    fim_supported: bool

    @property
    def stored_dtype(self) -> torch.dtype:
        """The element type of the file's embedding, which speaks for its weights."""
        return self.tensors[self.layout.embedding].dtype


def open_checkpoint(
    path: Path, name: str | None = None, revision: str = "", verified_as: str = ""
) -> Checkpoint:
    """Check the folder and describe it; a CheckpointError says in one line what is wrong.

    `name` is by default the folder's own; `revision` is what was asked for of the hub;
    `verified_as` is what `manifest.verify` gave for the folder, if it has been asked.
    """
    path = path.resolve()
    if not path.is_dir():
        raise CheckpointError(f"{path}: is not a folder")
    manifest.verify(path, verified_as)
    config = model_config.read_model_config(path / "config.json")
    files = weight_files.find_weight_files(path)
    tensors = stored_tensors.list_tensors(files)
    layout, geometry = layouts.recognise(files.main.name, tensors, config)
    tokenizer = tokenizer_file.read_tokenizer(path / "tokenizer.json", geometry.vocabulary_size)
    if layout.letter == "b" and tokenizer.has_underscore_sentinels:
        # StarCoder's family stores the same tensors as SantaCoder's.
        layout = dataclasses.replace(layout, letter="d")
    facts = [f"{name} {info.dtype} {info.shape}" for name, info in sorted(tensors.items())]
    return Checkpoint(
        path=path,
        name=name or path.name,
        revision=revision,
        geometry=geometry,
        layout=layout,
        files=files.paths,
        tensors=tensors,
        fingerprint=fingerprint((path / "config.json", *files.paths), facts),
        tokenizer_json=tokenizer.json_bytes,
        token_count=tokenizer.token_count,
        end_of_text_id=tokenizer.end_of_text_id,
        sentinel_ids=tokenizer.sentinel_ids,
        fim_supported=bool(tokenizer.sentinel_ids) and revision != REVISION_WITHOUT_FIM,
    )
