"""Records what this version says on the wire: `python tests/golden/record_frames.py`, at a release.

Every message of both contracts with every field set, as bytes and in words. Later versions have to
read the same out of them; a file of an older release is never written anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from santacoder.inference.v1 import inference_pb2
from santacoder.shard.v1 import shard_pb2

FRAMES = Path(__file__).parent / "frames-0.1.json"
CONTRACTS: tuple[FileDescriptor, ...] = (inference_pb2.DESCRIPTOR, shard_pb2.DESCRIPTOR)
DEEPEST = 6


def full(kind: type[Message], depth: int = 0, chosen: int = 0) -> Message:
    """A message with every field set; of a oneof the member number `chosen`."""
    message = kind()
    if kind.DESCRIPTOR.full_name == "google.protobuf.Any":
        return message
    for field in kind.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if oneof.fields[chosen % len(oneof.fields)] is not field:
                continue
        _put(message, cast(FieldDescriptor, field), depth)
    return message


def _put(message: Any, field: FieldDescriptor, depth: int) -> None:
    is_list = field.is_repeated
    if field.message_type is not None:
        if depth < DEEPEST and not field.message_type.GetOptions().map_entry:
            part = full(GetMessageClass(field.message_type), depth + 1)
            target = getattr(message, field.name)
            (target.add() if is_list else target).MergeFrom(part)
            if not is_list:
                target.SetInParent()
        return
    value = _value(field)
    if is_list:
        if not (field.message_type and field.message_type.GetOptions().map_entry):
            getattr(message, field.name).extend([value, value])
    else:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor) -> Any:
    """One that tells the field from its neighbours."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = f"{field.name} é"
            return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1].number if field.enum_type else 0
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return field.number + 0.5
    return 100 + field.number


def in_words(message: Message) -> object:
    """What a message says."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def frames() -> list[dict[str, object]]:
    """Every message, and each member of its oneofs."""
    found = []
    for contract in CONTRACTS:
        for descriptor in contract.message_types_by_name.values():
            kind = GetMessageClass(descriptor)
            most = max((len(oneof.fields) for oneof in descriptor.oneofs), default=1)
            for chosen in range(most):
                message = full(kind, chosen=chosen)
                data = message.SerializeToString(deterministic=True)
                name = descriptor.full_name
                found.append({"message": name, "hex": data.hex(), "says": in_words(message)})
    return found


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(frame) for frame in frames())
    FRAMES.write_text(f"[\n{lines}\n]\n")
