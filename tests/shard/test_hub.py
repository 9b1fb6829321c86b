"""A model is a folder or a hub id with a revision; a hub double on loopback plays the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_double import (
    MAIN_COMMIT,
    OTHER_COMMIT,
    REPOSITORY,
    HubDouble,
    hub_environment,
    two_commits,
)

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.errors import CheckpointError
from santacoder_shard.hub import resolve

# The hub's client reads its settings when it is imported, so each resolve has its own process.
RESOLVE = """
import json, sys
from santacoder_shard.errors import CheckpointError
from santacoder_shard.hub import resolve
try:
    found = resolve(sys.argv[1], sys.argv[2] or None)
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
else:
    names = sorted(item.name for item in found.path.iterdir())
    print(json.dumps({"path": str(found.path), "name": found.name, "revision": found.revision,
                      "commit": found.commit, "files": names}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> HubDouble:
    return two_commits(tmp_path / "served")


def run_resolve(
    cache: Path, endpoint: str, model: str, revision: str = "", *, offline: bool = False
) -> dict[str, str | list[str]]:
    """Call `resolve` in a fresh process that knows only this endpoint and this cache."""
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, model, revision],
        env=hub_environment(endpoint, cache, offline=offline),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, str | list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("revision", "commit"),
    [
        ("", MAIN_COMMIT),
        ("v1", MAIN_COMMIT),
        ("no-fim", OTHER_COMMIT),
        (OTHER_COMMIT, OTHER_COMMIT),
    ],
    ids=["default", "tag", "branch", "commit"],
)
def test_a_revision_becomes_the_folder_of_its_commit_then_also_offline(
    tmp_path: Path, hub: HubDouble, revision: str, commit: str
) -> None:
    with hub.serving() as endpoint:
        online = run_resolve(tmp_path / "cache", endpoint, REPOSITORY, revision)
    assert online["commit"] == commit
    assert online["revision"] == (revision or "main")
    assert online["name"] == REPOSITORY
    checkpoint = open_checkpoint(Path(str(online["path"])), REPOSITORY, str(online["revision"]))
    assert checkpoint.fingerprint == open_checkpoint(hub.folders[commit]).fingerprint
    assert checkpoint.fim_supported == (revision != "no-fim")
    offline = run_resolve(tmp_path / "cache", endpoint, REPOSITORY, revision, offline=True)
    assert offline == online


def test_only_needed_files_of_one_format_are_fetched(tmp_path: Path, hub: HubDouble) -> None:
    with hub.serving() as endpoint:
        main = run_resolve(tmp_path / "cache", endpoint, REPOSITORY)
        other = run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "no-fim")
    assert main["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert other["files"] == [
        "config.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
        "tokenizer.json",
    ]


def test_the_cache_serves_when_the_hub_does_not_answer(tmp_path: Path, hub: HubDouble) -> None:
    with hub.serving() as endpoint:
        online = run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "v1")
    assert run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "v1") == online


def test_a_half_filled_cache_is_completed(tmp_path: Path, hub: HubDouble) -> None:
    with hub.serving() as endpoint:
        before = run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "no-fim")
        (Path(str(before["path"])) / "pytorch_model-00002-of-00002.bin").unlink()
        assert run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "no-fim") == before


def test_a_branch_that_moved_is_resolved_anew(tmp_path: Path, hub: HubDouble) -> None:
    with hub.serving() as endpoint:
        before = run_resolve(tmp_path / "cache", endpoint, REPOSITORY)
        hub.revisions["main"] = OTHER_COMMIT
        after = run_resolve(tmp_path / "cache", endpoint, REPOSITORY)
    assert (before["commit"], after["commit"]) == (MAIN_COMMIT, OTHER_COMMIT)


def test_a_revision_is_resolved_once(tmp_path: Path, hub: HubDouble) -> None:
    with hub.serving() as endpoint:
        run_resolve(tmp_path / "cache", endpoint, REPOSITORY, "v1")
    by_name = [line for line in hub.requests if "/v1" in line]
    assert by_name == [f"GET /api/models/{REPOSITORY}/revision/v1"]


@pytest.mark.parametrize(
    ("model", "revision", "offline", "message"),
    [
        ("example/nothing", "", False, "example/nothing: not found on the hub"),
        (REPOSITORY, "v9", False, "example/santacoder: has no revision 'v9'"),
        (REPOSITORY, "v1", True, "revision 'v1' is not in the cache"),
        (REPOSITORY, MAIN_COMMIT[:7], True, "a full 40-digit commit"),
        ("a model", "", False, "model: is neither a folder nor a hub id; got 'a model'"),
        ("example/--model", "", False, "model: is neither a folder nor a hub id"),
    ],
)
def test_what_cannot_be_resolved_is_one_clear_line(
    tmp_path: Path, hub: HubDouble, model: str, revision: str, offline: bool, message: str
) -> None:
    with hub.serving() as endpoint:
        result = run_resolve(tmp_path / "cache", endpoint, model, revision, offline=offline)
    assert message in str(result["error"])
    assert "\n" not in str(result["error"])


def test_a_folder_is_itself_and_has_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    found = resolve(str(folder), None)
    assert (found.path, found.name, found.revision, found.commit) == (folder, "my-model", "", "")
    with pytest.raises(CheckpointError, match="revision: is for hub ids; got 'v1'"):
        resolve(str(folder), "v1")


@pytest.mark.parametrize("model", ["./missing", "/missing/folder", "a/b/c"])
def test_a_missing_folder_is_not_asked_of_the_hub(model: str) -> None:
    with pytest.raises(CheckpointError, match="model: is not a folder"):
        resolve(model, None)
