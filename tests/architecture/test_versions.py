"""The pinned generator, the code it wrote and the runtimes that users get must fit together."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def floor(requirements: list[str], name: str) -> str:
    (found,) = [r for r in requirements if re.fullmatch(rf"{name}>=[\d.]+", r)]
    return found.split(">=")[1]


def test_one_generator_is_pinned_everywhere() -> None:
    config = project()
    pins = [
        requirement
        for group in (
            config["build-system"]["requires"],
            config["project"]["optional-dependencies"]["dev"],
        )
        for requirement in group
        if requirement.startswith(("grpcio-tools", "mypy-protobuf"))
    ]
    assert len(pins) == 4 and len(set(pins)) == 2 and all("==" in pin for pin in pins)


def test_runtime_floors_are_what_the_generated_code_demands() -> None:
    requirements = project()["project"]["dependencies"]
    folder = ROOT / "proto/santacoder/inference/v1"
    stubs = (folder / "inference_pb2_grpc.py").read_text()
    messages = (folder / "inference_pb2.py").read_text()
    (grpc_version,) = re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stubs)
    (protobuf_version,) = re.findall(r"Protobuf Python Version: ([\d.]+)", messages)
    assert floor(requirements, "grpcio") == grpc_version
    assert floor(requirements, "protobuf") == protobuf_version


def test_the_change_log_names_the_version() -> None:
    assert f"## [{project()['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_tests_pin_a_torch_that_users_may_have() -> None:
    (pin,) = re.findall(r"^torch==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.M)
    allowed = floor(project()["project"]["optional-dependencies"]["shard"], "torch")
    assert [int(part) for part in pin.split(".")] >= [int(part) for part in allowed.split(".")]
