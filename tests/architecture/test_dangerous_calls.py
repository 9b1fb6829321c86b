"""What no shipped source may do, read from the parsed sources: run what a file or a caller says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("client/santacoder_client", "router/santacoder_router", "shard/santacoder_shard")
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
# Each of them unpickles, or runs what it reads. multiprocessing pickles whatever it passes on.
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "multiprocessing"}
# torch.load(weights_only=True) reports a hostile file by this error.
NAMES_OF_PICKLE = {"UnpicklingError"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "tempfile.mktemp",
    "yaml.load",
    "pandas.read_pickle",
    "logging.config.listen",
}
# torch.distributed sends these pickled.
OBJECT_COLLECTIVES = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    assert SOURCES
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            yield file, node


def full_name(node: ast.expr) -> str:
    """`a.b.c` of what is called; empty where it is no such chain."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value)}.{node.attr}"
    return ""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Place, full name and call of every call."""
    for file, node in nodes():
        if isinstance(node, ast.Call):
            yield f"{file.relative_to(ROOT)}:{node.lineno}", full_name(node.func), node


def option(call: ast.Call, name: str) -> object:
    """A keyword's constant value, None where it has none."""
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def test_no_module_that_unpickles_is_imported() -> None:
    for file, node in nodes():
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            assert {alias.name for alias in node.names} <= NAMES_OF_PICKLE, file
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            assert node.module.split(".")[0] not in MODULES, file
        elif isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & MODULES, file


def test_weights_are_loaded_without_running_anything_in_them() -> None:
    loads = [(place, call) for place, name, call in calls() if name == "torch.load"]
    assert loads
    for place, call in loads:
        assert option(call, "weights_only") is True, place


def test_nothing_is_evaluated_and_no_shell_is_asked() -> None:
    for place, name, call in calls():
        assert name not in BUILT_IN | CALLS, place
        assert option(call, "shell") is not True, place
        assert option(call, "allow_pickle") is not True, place
        assert name.rpartition(".")[2] not in OBJECT_COLLECTIVES, place


def test_no_assert_is_shipped() -> None:
    for file, node in nodes():
        assert not isinstance(node, ast.Assert), f"{file}:{node.lineno}"


@pytest.mark.parametrize("switch", ["ssl._create_unverified_context", "ssl.CERT_NONE"])
def test_no_certificate_goes_unchecked(switch: str) -> None:
    for file, node in nodes():
        if isinstance(node, ast.Attribute):
            assert full_name(node) != switch, file


def test_every_plaintext_port_and_channel_is_one_of_these() -> None:
    """A new one needs a reason why nobody else can listen in."""
    found = {
        place.split(":")[0]
        for place, name, _ in calls()
        if name.endswith((".add_insecure_port", ".insecure_channel"))
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
