"""Pure: gpud.v1 messages as the plain values that JSON, YAML and tables are made of.

The JSON shape is a contract: the proto's own snake_case names; every field without presence is
there, zeros and empty lists too; what is unknown is absent; bytes are plain numbers (proto3's
JSON mapping would quote them); a Timestamp is RFC 3339, a Duration `1.5s`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message


def fields_of(descriptor: Any) -> list[FieldDescriptor]:
    """A message type's fields in the order of the proto.

    One place says that a descriptor is a descriptor: the stubs know a pure and a C one apart.
    """
    return list(descriptor.fields)


def to_plain(message: Message) -> dict[str, Any]:
    """The message as a dict of plain values, its fields in the order of the proto."""
    return {
        field.name: _plain_field(message, field)
        for field in fields_of(message.DESCRIPTOR)
        if not field.has_presence or message.HasField(field.name)
    }


def known(message: Message, field: str) -> Any:
    """The value of an `optional` field, or None while it is unknown."""
    return getattr(message, field) if message.HasField(field) else None


def word(message: Message, field: str) -> str:
    """The value of an enum field without its type's prefix: HEALTHY, READY; `-` if unset."""
    descriptor: Any = message.DESCRIPTOR.fields_by_name[field]
    if descriptor.has_presence and not message.HasField(field):
        return "-"
    return enum_word(descriptor.enum_type, getattr(message, field))


def enum_word(enum: Any, number: int) -> str:
    """A value's name without the prefix that its type gives it; `-` for UNSPECIFIED."""
    if number not in enum.values_by_number:
        return str(number)  # of a newer gpud
    short = enum.values_by_number[number].name.removeprefix(enum_prefix(enum))
    return "-" if short == "UNSPECIFIED" else short


def enum_prefix(enum: Any) -> str:
    """DEVICE_HEALTH_ for DeviceHealth: the zero of every enum is its prefix and UNSPECIFIED."""
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")


def seconds_of(moment: Timestamp | Duration) -> float:
    """Seconds since the epoch, or of the span."""
    return float(moment.seconds) + moment.nanos / 1e9


def duration(seconds: float) -> Duration:
    """A span for the wire."""
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def timestamp(seconds: float) -> Timestamp:
    """A moment, in seconds since the epoch, for the wire."""
    nanos = round(seconds * 1e9)
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


def duration_text(span: Duration) -> str:
    """`60s`, `1.5s`, `-0.25s`."""
    sign = "-" if span.seconds < 0 or span.nanos < 0 else ""
    text = f"{sign}{abs(span.seconds)}.{abs(span.nanos):09d}"
    return text.rstrip("0").rstrip(".") + "s"


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _plain_field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if is_map(field):
        of = fields_of(field.message_type)[1]  # of an entry's key and value
        return {key: _plain_value(of, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_plain_value(field, element) for element in value]
    return _plain_value(field, value)


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        known_value = field.enum_type.values_by_number.get(value)
        return known_value.name if known_value else value
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return duration_text(value)
    if field.message_type is not None:
        return to_plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        # proto3's JSON mapping; JSON itself has no such numbers.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
