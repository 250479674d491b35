"""Pure: the fields of one message, one under another, read by the units in their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.messages import enum_word, fields_of, is_map, seconds_of
from gpuctl.tables import Column, Table, clean, moment_text, paint
from gpuctl.units import UNKNOWN, size_text, span_text

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message


def describe(message: Message, *, color: bool = False) -> list[str]:
    """Every field of a message, one under another, read by the unit in its name.

    What is empty is left out; what is unknown shows as `-`.
    """
    lines: list[str] = []
    fields = [f for f in fields_of(message.DESCRIPTOR) if _worth_showing(message, f)]
    labels = [_label(field) for field in fields]
    width = max(map(len, labels), default=0)
    for field, label in zip(fields, labels, strict=True):
        value = getattr(message, field.name)
        block = _block(field, value, message)
        if block is not None:
            lines += [f"{label}:", *(f"  {line}" for line in block)]
        else:
            text = _value_text(field, value, known=_is_known(message, field))
            lines.append(f"{label + ':':<{width + 1}} {paint(text) if color else text}".rstrip())
    return lines


# Absent, or 0, where they say nothing, rather than where nothing is known.
_MEANT_SOMETIMES = {
    "downloaded_bytes",
    "queue_position",
    "memory_node",
    "host_bytes",
    "cpu_affinity",
    "busy",
    "overuse_bytes",
    "orphan_count",
}


def _worth_showing(message: Message, field: FieldDescriptor) -> bool:
    if field.has_presence and not message.HasField(field.name):
        # An unknown reading is told. An absent message is not, nor an option that nobody gave.
        sometimes = message.DESCRIPTOR.name == "ModelOptions" or field.name in _MEANT_SOMETIMES
        return field.message_type is None and not sometimes
    if field.has_presence:
        return True
    is_told = field.name.endswith("_bytes") and field.name not in _MEANT_SOMETIMES
    return bool(getattr(message, field.name)) or is_told


def _is_known(message: Message, field: FieldDescriptor) -> bool:
    return not field.has_presence or message.HasField(field.name)


def _block(field: FieldDescriptor, value: Any, message: Message) -> list[str] | None:
    """The lines of a field that needs more than one; None for one that fits beside its label."""
    if is_map(field):
        return [f"{clean(key)}={clean(str(value[key]))}" for key in sorted(value)]
    if field.is_repeated:
        if field.message_type is None:
            return None
        return _message_table(field, list(value))
    if field.message_type is None or isinstance(value, Timestamp | Duration):
        return None
    return describe(getattr(message, field.name))


def _message_table(field: FieldDescriptor, rows: list[Message]) -> list[str]:
    plain = [f for f in fields_of(field.message_type) if _fits_a_cell(f)]
    shown = [f for f in plain if any(_worth_showing(row, f) for row in rows)]
    return Table([_message_column(f) for f in shown]).lines(rows)


def _fits_a_cell(field: FieldDescriptor) -> bool:
    return not is_map(field) and not (field.is_repeated and field.message_type is not None)


def _message_column(field: FieldDescriptor) -> Column[Message]:
    def cell(row: Message) -> str:
        return _value_text(field, getattr(row, field.name), known=_is_known(row, field))

    number = field.cpp_type in {field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_DOUBLE}
    return Column(header=_label(field).upper(), cell=cell, right=number)


_UNIT_TEXTS: dict[str, Callable[[Any], str]] = {
    "_bytes": size_text,
    "_percent": lambda value: f"{value:g} %",
    "_celsius": lambda value: f"{value:g} °C",
    "_watts": lambda value: f"{value:g} W",
    "_mhz": lambda value: f"{value} MHz",
}
_UNIT_SUFFIX = re.compile("|".join(f"{suffix}$" for suffix in _UNIT_TEXTS))


# Fields whose names do not end in their unit.
_WHOLE_NAMES: dict[str, Callable[[Any], str]] = {
    "bytes": size_text,
    # A share: 0.05 is +5.0%.
    "past_error": lambda value: f"{value:+.1%}",
}


def _reads(field: FieldDescriptor) -> Callable[[Any], str] | None:
    """How its values read, where their unit says it."""
    suffix = _UNIT_SUFFIX.search(field.name)
    return _UNIT_TEXTS[suffix[0]] if suffix else _WHOLE_NAMES.get(field.name)


def _label(field: FieldDescriptor) -> str:
    short = _UNIT_SUFFIX.sub("", field.name)
    message: Any = field.containing_type
    taken = short in message.fields_by_name  # as `engine_bytes` beside `engine`
    return (field.name if taken else short).replace("_", " ")


def _value_text(field: FieldDescriptor, value: Any, *, known: bool = True) -> str:
    if not known:
        return UNKNOWN
    if field.name == "argv":
        return clean(shlex.join(value))  # words as a shell would be told them
    if field.is_repeated:
        return ", ".join(clean(str(element)) for element in value)
    if isinstance(value, Timestamp):
        return moment_text(value)
    if isinstance(value, Duration):
        return span_text(seconds_of(value))
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    reads = _reads(field)
    if reads is not None:
        return reads(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(f"{value:g}" if isinstance(value, float) else str(value))
