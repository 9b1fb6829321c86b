"""A model's files are cut off or replaced under a service: what is served stays as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from running_service import Service, serving
from system.cases import complete, prompt_ids, said

from santacoder_client import Client


def cut_off(folder: Path) -> str:
    (folder / "SHA256SUMS").unlink()
    os.truncate(folder / "model.safetensors", 100)
    return "model.safetensors: is cut short"


def flip_a_bit(folder: Path) -> str:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 4]))
    return "model.safetensors: is not the file that SHA256SUMS names"


def put_a_pipe(folder: Path) -> str:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    return "config.json: is not a regular file"


@pytest.mark.long
@pytest.mark.fault("D2", "D11", "D14")
@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, put_a_pipe])
def test_it_serves_on_from_memory_and_the_next_life_is_refused_by_name(
    tmp_path: Path, run_folders: Path, damage: Callable[[Path], str]
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    names = ("config.json", "tokenizer.json", "model.safetensors")
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(sums.stdout)
    prompt = prompt_ids(61, 20)
    with serving(folder, run_folders) as service, Client(service.target, retry=None) as client:
        golden = said(complete(client, prompt, {}))
        named = damage(folder)
        # Another prompt first: the golden one is cached.
        complete(client, prompt_ids(62, 20), {}, max_new_tokens=4)
        assert said(complete(client, prompt, {})) == golden
        code, err = end_of_life(service)
    assert code != 0
    assert named in err and "Traceback" not in err


def end_of_life(service: Service) -> tuple[int, str]:
    """The rank is killed, and what the next one says of the files ends the service."""
    os.kill(service.children()["rank 0"], signal.SIGKILL)
    code, _, err = service.end()
    return code, err
