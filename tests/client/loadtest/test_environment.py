"""What a run says of its machine: plain values, and a commit only of a checkout that is ours."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from santacoder_client.loadtest import environment as module
from santacoder_client.loadtest.environment import environment, git_revision


def test_the_environment_is_plain_json_and_names_nobody() -> None:
    values = environment()
    assert json.loads(json.dumps(values)) == values
    assert values["python"].count(".") == 2
    assert values["cpu_count"] >= 1 and values["grpc"] and values["numpy"]
    assert not {"hostname", "user", "node", "path"} & set(values)


def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    here = git_revision(Path(module.__file__).parent)
    assert here is None or re.fullmatch(r"[0-9a-f]{40,64}(-dirty)?", here)
    # A copy inside another project's checkout has no commit of its own.
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "environment.py").write_text("")
    assert git_revision(tmp_path) is None
