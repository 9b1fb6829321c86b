"""Which way the arrows point, read from the parsed sources and from a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "santacoder_client": ROOT / "client/santacoder_client",
    "santacoder_router": ROOT / "router/santacoder_router",
    "santacoder_shard": ROOT / "shard/santacoder_shard",
}
TENSOR_LIBRARIES = {"torch", "safetensors", "accelerate", "transformers"}


def imported_modules(source: Path) -> set[str]:
    """Full names of everything the file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported_modules_of(node)
    return names


def imported_modules_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module} if node.level == 0 and node.module else set()


def foreign_modules(source: Path) -> set[str]:
    """Tops of what the file imports that is neither standard, nor ours, nor in a plain install."""
    plain = {"google", "grpc", "grpc_status", "santacoder", "santacoder_client"}
    if source.name == "_tracing.py":
        plain.add("opentelemetry")  # only where the program has imported it already
    tops = {name.split(".")[0] for name in imported_modules(source)}
    return tops - plain - set(sys.stdlib_module_names)


def sources(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files, f"{folder} holds no sources"
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_a_sibling(package: str) -> None:
    siblings = set(PACKAGES) - {package}
    for file in sources(PACKAGES[package]):
        tops = {name.split(".")[0] for name in imported_modules(file)}
        assert not tops & siblings, f"{file} imports {tops & siblings}"


@pytest.mark.parametrize("package", ["santacoder_client", "santacoder_router"])
def test_client_and_router_know_no_tensors(package: str) -> None:
    for file in sources(PACKAGES[package]):
        tops = {name.split(".")[0] for name in imported_modules(file)}
        assert not tops & TENSOR_LIBRARIES, f"{file} imports {tops & TENSOR_LIBRARIES}"


def test_the_sdk_needs_no_more_than_the_plain_install() -> None:
    for file in sources(PACKAGES["santacoder_client"]):
        if "loadtest" in file.parts:
            continue
        assert not foreign_modules(file), f"{file} imports {foreign_modules(file)}"
        names = imported_modules(file)
        assert not any(name.startswith("santacoder_client.loadtest") for name in names), file


def test_the_load_tester_needs_no_more_than_its_extra() -> None:
    for file in sources(PACKAGES["santacoder_client"] / "loadtest"):
        others = foreign_modules(file) - {"numpy", "rich"}
        assert not others, f"{file} imports {others}"


def test_the_router_core_imports_the_standard_library_and_itself() -> None:
    banned = {"asyncio", "threading", "logging", "random", "time", "os", "socket"}
    for file in sources(PACKAGES["santacoder_router"] / "core"):
        for name in imported_modules(file):
            top = name.split(".")[0]
            own = name.startswith("santacoder_router.core")
            assert own or (top in sys.stdlib_module_names and top not in banned), (file, name)


def test_only_the_shard_imports_accelerate_and_in_one_file() -> None:
    users = [
        file.name
        for folder in PACKAGES.values()
        for file in sources(folder)
        if "accelerate" in {name.split(".")[0] for name in imported_modules(file)}
    ]
    assert users == ["weights.py"]


@pytest.mark.parametrize("module", ["santacoder_client", "santacoder_client.cli"])
def test_importing_the_sdk_loads_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print(sorted({'torch', 'numpy', 'tokenizers', 'transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def test_importing_the_router_loads_no_torch() -> None:
    code = "import sys, santacoder_router.__main__; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "False"


def test_top_level_folders_are_no_packages() -> None:
    for folder in ("proto", "client", "router", "shard"):
        assert not (ROOT / folder / "__init__.py").exists()
