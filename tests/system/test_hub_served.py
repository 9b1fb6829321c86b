"""A model named by hub id: branch, tag and commit become one commit, which then serves offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
from running_service import Service, serving
from system.cases import prompt_ids
from system.judge import greedy_ids

from santacoder_client import Client, FailedPrecondition

PROMPT = prompt_ids(71, 12)
NEW_TOKEN_COUNT = 8
COMMITS = {"no-fim": OTHER_COMMIT, "v1": MAIN_COMMIT, OTHER_COMMIT: OTHER_COMMIT}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HubDouble:
    return two_commits(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def endpoint(hub: HubDouble) -> Iterator[str]:
    with hub.serving() as address:
        yield address


@pytest.fixture(scope="module")
def expected(hub: HubDouble, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """What transformers says, by commit, without the files that are no part of a checkpoint."""
    ids = {}
    for commit, folder in hub.folders.items():
        clean = tmp_path_factory.mktemp("clean") / commit
        shutil.copytree(folder, clean, ignore=shutil.ignore_patterns("training_args.bin"))
        ids[commit] = greedy_ids(clean, PROMPT, NEW_TOKEN_COUNT)
    return ids


def check_served(service: Service, revision: str, expected: dict[str, list[int]]) -> None:
    """The weights are those of the revision's commit, and the service says so."""
    commit = COMMITS[revision]
    with Client(service.target) as client:
        model = client.model()
        assert (model.name, model.revision) == (REPOSITORY, commit)
        done = client.complete(PROMPT, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True)
        assert done.accepted.model_revision == commit
        assert done.token_ids == expected[commit]
        assert model.infill_supported == (revision != "no-fim")
        if revision == "no-fim":
            with pytest.raises(FailedPrecondition) as caught:
                client.infill("x = ", "\n")
            assert caught.value.reason == "FIM_UNSUPPORTED"


@pytest.mark.parametrize("revision", COMMITS, ids=["branch", "tag", "commit"])
def test_a_revision_is_served_as_its_commit_and_then_offline_from_the_cache(
    tmp_path: Path,
    run_folders: Path,
    hub: HubDouble,
    endpoint: str,
    expected: dict[str, list[int]],
    revision: str,
) -> None:
    wanted = f"--revision={revision}"
    online = hub_environment(endpoint, tmp_path)
    with serving(REPOSITORY, run_folders, wanted, environment=online) as service:
        check_served(service, revision, expected)
    asked = len(hub.requests)
    offline = hub_environment(endpoint, tmp_path, offline=True)
    with serving(REPOSITORY, run_folders, wanted, environment=offline) as service:
        check_served(service, revision, expected)
    assert len(hub.requests) == asked


def test_a_revision_that_does_not_exist_is_exit_code_3_and_one_line(
    tmp_path: Path, run_folders: Path, endpoint: str
) -> None:
    environment = hub_environment(endpoint, tmp_path)
    service = Service(REPOSITORY, run_folders, "--revision=v9", environment=environment)
    code, out, err = service.end()
    service.close()
    assert (code, out) == (3, "")
    assert err == f"error: {REPOSITORY}: has no revision 'v9'\n"
