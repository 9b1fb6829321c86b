"""Runs protoc over the contract, the only place that does: installs, wheels and `make proto`."""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO_FOLDER = Path(__file__).parent
PROTO_FILES = (
    "santacoder/inference/v1/inference.proto",
    "santacoder/shard/v1/shard.proto",
)


def generate(proto_folder: Path = PROTO_FOLDER) -> list[Path]:
    """Write messages, stubs and their types beside each .proto file; return the files written."""
    from grpc_tools import protoc

    includes = [
        proto_folder,
        # google/protobuf comes with grpcio-tools, google/rpc with googleapis-common-protos.
        Path(str(importlib.resources.files("grpc_tools"))) / "_proto",
        *(Path(entry) for entry in sys.path if (Path(entry) / "google/rpc/status.proto").exists()),
    ]
    arguments = [
        "protoc",
        *(f"--proto_path={folder}" for folder in includes),
        f"--python_out={proto_folder}",
        f"--mypy_out={proto_folder}",
        f"--grpc_python_out={proto_folder}",
        f"--mypy_grpc_out={proto_folder}",
        *PROTO_FILES,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")
    return [
        (proto_folder / name).with_name(Path(name).stem + suffix)
        for name in PROTO_FILES
        for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    ]


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Generates before every build, and puts the demo checkpoint into wheels."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        for path in generate(Path(self.root) / "proto"):
            build_data["artifacts"].append(str(path.relative_to(self.root)))
        demo = Path(self.root) / "models" / "demo" / "checkpoint"
        if self.target_name == "wheel" and version == "standard":
            for path in sorted(demo.glob("*")):
                target = f"santacoder_shard/demo_checkpoint/{path.name}"
                build_data["force_include"][str(path)] = target


if __name__ == "__main__":
    for written in generate():
        print(written.relative_to(PROTO_FOLDER.parent))
