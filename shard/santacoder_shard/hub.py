"""Turns what a user calls a model, a folder or a hub id, into a local folder; reads no weights.

A revision is resolved to its commit once, here, and every rank loads the folder of that commit: a
branch may move between two ranks' starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from santacoder_shard.errors import CheckpointError
from santacoder_shard.weight_files import find_weight_files

DESCRIPTION_FILES = ("config.json", "tokenizer.json")
SAFETENSORS_FILES = ("model*.safetensors", "model.safetensors.index.json")
PICKLED_FILES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model's folder on this machine."""

    path: Path
    name: str
    """The hub id as given, or the folder's name."""
    revision: str
    """The branch, tag or commit asked for, `main` by default; empty for a local folder."""
    commit: str
    """The 40 hex digits the revision stood for; empty for a local folder."""
    verified_as: str = ""
    """What `manifest.verify` gave for the folder, where it has been asked."""


def resolve(model: str, revision: str | None) -> ResolvedModel:
    """The folder of `model`, fetched if it is a hub id; a CheckpointError if there is none.

    Without a network, or with HF_HUB_OFFLINE=1, what the hub's cache holds is used.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"revision: is for hub ids; got {revision!r} with a folder")
        return ResolvedModel(folder.resolve(), folder.resolve().name, "", "")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or folder.exists():
        raise CheckpointError(f"model: is not a folder; got {model!r:.200}")
    wanted = revision or "main"
    path = _fetch_description(model, wanted)
    _fetch_weights(model, path)
    return ResolvedModel(path, model, wanted, path.name)


def _fetch_description(model: str, revision: str) -> Path:
    """The snapshot folder of the commit that `revision` stands for, with the small files in it."""
    try:
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=list(DESCRIPTION_FILES))
        )
    except HFValidationError as error:
        raise CheckpointError(
            f"model: is neither a folder nor a hub id; got {model!r:.200}; "
            "allowed PATH, NAME or ORGANISATION/NAME"
        ) from error
    except GatedRepoError as error:
        raise CheckpointError(f"{model}: needs its licence accepted and HF_TOKEN set") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{model}: has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{model}: not found on the hub, or private (HF_TOKEN)") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{model}: revision {revision!r} is not in the cache and the hub cannot be reached; "
            "offline, name a branch or tag fetched before, or a full 40-digit commit"
        ) from error
    except Exception as error:
        # Which error a failing network raises depends on the client's transport.
        raise _failed(model, error) from error


def _fetch_weights(model: str, path: Path) -> None:
    """Add weight files of one format to the snapshot folder, unless the cache has them all."""
    if _has_weights(path):
        return
    try:
        names = HfApi().list_repo_files(model, revision=path.name)
        has_safetensors = any(fnmatchcase(name, SAFETENSORS_FILES[0]) for name in names)
        patterns = SAFETENSORS_FILES if has_safetensors else PICKLED_FILES
        snapshot_download(model, revision=path.name, allow_patterns=list(patterns))
    except Exception as error:
        raise _failed(model, error) from error


def _has_weights(path: Path) -> bool:
    try:
        find_weight_files(path)
    except CheckpointError:
        return False
    return True


def _failed(model: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().partition("\n")[0]
    return CheckpointError(f"{model}: cannot be fetched: {type(error).__name__}: {reason:.160}")
