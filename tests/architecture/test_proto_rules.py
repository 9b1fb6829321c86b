"""The naming rules of buf's STANDARD lint, a comment everywhere, numbers that never move."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from santacoder.inference.v1 import inference_pb2
from santacoder.shard.v1 import shard_pb2

PROTO_FOLDER = Path(__file__).parents[2] / "proto"
NUMBERS_FILE = Path(__file__).with_name("wire_numbers.json")
FILES = [inference_pb2.DESCRIPTOR, shard_pb2.DESCRIPTOR]


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    pending = list(file.message_types_by_name.values())
    while pending:
        message = pending.pop()
        pending += message.nested_types
        if not message.GetOptions().map_entry:
            yield message


def enums(file: FileDescriptor) -> Iterator[EnumDescriptor]:
    yield from file.enum_types_by_name.values()
    for message in messages(file):
        yield from message.enum_types


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_folder_is_the_package_and_ends_in_a_version(file: FileDescriptor) -> None:
    assert file.package == str(Path(file.name).parent).replace("/", ".")
    assert re.search(r"\.v\d+$", file.package)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_names_are_cased_as_the_style_guide_says(file: FileDescriptor) -> None:
    for message in messages(file):
        assert re.fullmatch(r"([A-Z][a-z0-9]*)+", message.name), message.full_name
        for field in message.fields:
            assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name), field.full_name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_enum_values_carry_their_enum_and_zero_is_unspecified(file: FileDescriptor) -> None:
    for enum in enums(file):
        prefix = f"{snake(enum.name).upper()}_"
        assert enum.values_by_number[0].name == f"{prefix}UNSPECIFIED"
        assert all(value.name.startswith(prefix) for value in enum.values)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_method_has_its_own_request_and_response(file: FileDescriptor) -> None:
    used: list[str] = []
    for service in file.services_by_name.values():
        assert service.name.endswith("Service")
        for method in service.methods:
            assert method.input_type.name == f"{method.name}Request"
            assert method.output_type.name == f"{method.name}Response"
            used += [method.input_type.full_name, method.output_type.full_name]
    assert used and len(used) == len(set(used))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_declaration_has_a_comment_above_it(file: FileDescriptor) -> None:
    lines = (PROTO_FOLDER / file.name).read_text().splitlines()
    declaration = re.compile(
        r"\s*(message|enum|service|rpc|oneof|optional|repeated|map<|[\w.]+\s+\w+\s*=|[A-Z_]+\s*=)"
    )
    skipped = ("syntax", "package", "import", "option ")
    for number, line in enumerate(lines):
        if declaration.match(line) and not line.strip().startswith(("//", *skipped)):
            assert lines[number - 1].strip().startswith("//"), f"{file.name}:{number + 1} {line}"


def test_field_and_enum_numbers_are_the_recorded_ones() -> None:
    """A number may be added, never changed: old clients go on reading new servers.

    After adding a field, add its line to wire_numbers.json by hand.
    """
    fields = {
        f"{message.full_name}.{field.name}": field.number
        for file in FILES
        for message in messages(file)
        for field in message.fields
    }
    values = {
        f"{enum.full_name}.{value.name}": value.number
        for file in FILES
        for enum in enums(file)
        for value in enum.values
    }
    assert {**fields, **values} == json.loads(NUMBERS_FILE.read_text())


def test_every_public_scalar_option_has_presence() -> None:
    names = ("CompletionRequest", "InfillPrompt", "Sampling", "Stopping", "Output", "SessionOpen")
    for name in names:
        for field in inference_pb2.DESCRIPTOR.message_types_by_name[name].fields:
            assert field.has_presence or field.is_repeated, field.full_name
