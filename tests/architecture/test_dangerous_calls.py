"""What no shipped source may do: run what a file or a caller says, or let others listen in."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from architecture.dangerous import findings, full_name

ROOT = Path(__file__).parents[2]
FOLDERS = ("client/santacoder_client", "router/santacoder_router", "shard/santacoder_shard")
PLANTED = """\
import pickle
from multiprocessing import Queue
from pickle import loads
eval("1")
__import__(name)
os.system("x")
torch.load(path)
torch.load(path, weights_only=False)
numpy.load(path, allow_pickle=True)
subprocess.run("x", shell=True)
tempfile.mktemp()
torch.distributed.broadcast_object_list([])
AutoModel.from_pretrained(name, trust_remote_code=True)
hashlib.md5(token)
re.compile(request.pattern)
re.search("a" + user, text)
self._log.error(f"bad {value}")
ssl.CERT_NONE
assert token
"""
# Where chance is drawn that no security rests on: loads, and pauses between attempts.
DRAWERS = ("client/santacoder_client/loadtest/", "client/santacoder_client/_retry.py")


@pytest.fixture(scope="module")
def sources() -> dict[str, ast.Module]:
    """Every shipped source, parsed."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


def test_no_shipped_source_does_any_of_it(sources: dict[str, ast.Module]) -> None:
    found = {file: findings(tree) for file, tree in sources.items()}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize("line", PLANTED.splitlines())
def test_each_of_it_would_be_found(line: str) -> None:
    assert findings(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "from pickle import UnpicklingError",
        "torch.load(path, weights_only=True)",
        "re.compile(rf'{NAME}+')",
        "log.info('ready', listen=address)",
    ],
)
def test_what_is_sound_is_not(line: str) -> None:
    assert findings(ast.parse(line)) == []


def test_ids_and_seeds_are_not_drawn_from_what_can_be_guessed(
    sources: dict[str, ast.Module],
) -> None:
    for file, tree in sources.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "random" not in names or file.startswith(DRAWERS), file


def test_every_plaintext_port_and_channel_is_one_of_these(sources: dict[str, ast.Module]) -> None:
    """A new one needs a reason why nobody else can listen in."""
    found = {
        file
        for file, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and full_name(node.func).endswith((".add_insecure_port", ".insecure_channel"))
    }
    assert found == {
        # Only to loopback with a token, unless asked for; without one it is the caller's choice.
        "client/santacoder_client/_security.py",
        "client/santacoder_client/loadtest/target.py",
        # For tests, on loopback.
        "client/santacoder_client/loadtest/mock_shard/group.py",
        "client/santacoder_client/testing.py",
        # `security_options.py` refuses other machines.
        "router/santacoder_router/server.py",
        "router/santacoder_router/shard_link.py",
        # `config.py` refuses other machines.
        "shard/santacoder_shard/server.py",
    }
