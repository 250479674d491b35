"""The one table: every refusal that can reach the wire has a code, a reason and its facts."""

from __future__ import annotations

import base64
import dataclasses
import typing
import urllib.parse
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from gpud import errors
from gpud.errors import DeviceShortage, GpudError
from gpud.rpc.errors import DOMAIN, internal_status, status_of

Code = grpc.StatusCode
NEVER_ON_THE_WIRE = {errors.ConfigInvalid, errors.StateDirectoryRefused}
# Beyond this gRPC clients drop headers at random, beyond the double always.
HEADER_BYTES = 8 * 1024
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

# The contract: what clients may lean on.
TABLE = {
    "OPTION_INVALID": Code.INVALID_ARGUMENT,
    "DEVICE_NOT_FOUND": Code.NOT_FOUND,
    "RESERVATION_NOT_FOUND": Code.NOT_FOUND,
    "MODEL_NOT_FOUND": Code.NOT_FOUND,
    "INSTANCE_NOT_FOUND": Code.NOT_FOUND,
    "VRAM_INSUFFICIENT": Code.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": Code.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": Code.RESOURCE_EXHAUSTED,
    "ENFORCEMENT_UNAVAILABLE": Code.FAILED_PRECONDITION,
    "DEVICE_UNAVAILABLE": Code.FAILED_PRECONDITION,
    "STALE": Code.UNAVAILABLE,
    "RECONCILING": Code.UNAVAILABLE,
    "STORE_READ_ONLY": Code.UNAVAILABLE,
    "GENERATION_MISMATCH": Code.ABORTED,
    "WRONG_STATE": Code.FAILED_PRECONDITION,
    "MODEL_FILE_INVALID": Code.FAILED_PRECONDITION,
    "ENGINE_MISSING": Code.FAILED_PRECONDITION,
    "ENGINE_EXITED": Code.ABORTED,
    "ENGINE_NOT_READY": Code.ABORTED,
    "FOOTPRINT_EXCEEDED": Code.ABORTED,
    "INSTANCE_LOST": Code.ABORTED,
    "LOAD_CANCELLED": Code.ABORTED,
}


def leaves(kind: type[GpudError] = GpudError) -> list[type[GpudError]]:
    """The classes of errors.py that nothing is derived from."""
    below = [each for each in kind.__subclasses__() if each.__module__ == "gpud.errors"]
    if not below:
        return [kind]
    return [leaf for each in below for leaf in leaves(each)]


WIRE_LEAVES = [leaf for leaf in leaves() if leaf not in NEVER_ON_THE_WIRE]


def example(kind: type[Any], text: str = "x17", tail: int = 2) -> Any:
    """An error, or a value in one, with every fact set."""
    hints = typing.get_type_hints(kind)
    made = {field.name: _fact(hints[field.name], text, tail) for field in dataclasses.fields(kind)}
    return kind(**made)


def _fact(hint: Any, text: str, tail: int) -> Any:
    if hint is str:
        return text
    if hint is bool:
        return True
    if hint == tuple[DeviceShortage, ...]:
        return tuple(
            dataclasses.replace(
                example(DeviceShortage, text), alias=f"gpu{n}", rule="", obstacle=""
            )
            for n in range(tail)
        )
    if hint == tuple[str, ...]:
        return (text,) * tail
    if float in typing.get_args(hint) or hint is float:
        return 1.5
    return 2**40


def details(error: GpudError) -> tuple[Any, list[Any]]:
    """The ErrorInfo and every other detail."""
    info, rest = error_details_pb2.ErrorInfo(), []
    for detail in status_of(error).details:
        if not detail.Unpack(info):
            rest.append(detail)
    return info, rest


@pytest.mark.parametrize("leaf", WIRE_LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_leaf_has_its_code_its_reason_and_its_facts(leaf: type[GpudError]) -> None:
    error = example(leaf)
    status = status_of(error)
    info, _ = details(error)

    assert status.code == TABLE[leaf.reason].value[0]
    assert (info.reason, info.domain) == (leaf.reason, DOMAIN)
    assert status.message == str(error)
    assert status.message.startswith("cannot ")
    for field in dataclasses.fields(leaf):
        if field.name == "shortages":
            assert info.metadata["gpu1.foreign_bytes"] == str(2**40)
            assert info.metadata["gpu0.device"] == "x17"
        else:
            assert info.metadata[field.name]


def test_the_table_is_whole() -> None:
    assert {leaf.reason for leaf in WIRE_LEAVES} == set(TABLE)


@pytest.mark.parametrize("text", ["word " * 400, "\u2581ü漢" * 600, "\0\x1b\n" * 900])
@pytest.mark.parametrize("leaf", WIRE_LEAVES, ids=lambda leaf: leaf.__name__)
def test_a_status_fits_into_the_header_it_travels_in(leaf: type[GpudError], text: str) -> None:
    """The words of a broken engine can be long and of any alphabet."""
    status = status_of(example(leaf, text, tail=64))
    message = urllib.parse.quote(status.message, safe=PLAIN)  # as gRPC escapes it
    size = len(message) + len(base64.b64encode(status.SerializeToString()))
    assert size + 200 <= HEADER_BYTES


def test_a_bad_field_is_named_as_a_violation_too() -> None:
    _, rest = details(errors.OptionInvalid(field="ttl", problem="too long"))
    bad = error_details_pb2.BadRequest()
    assert rest[0].Unpack(bad)
    assert [(each.field, each.description) for each in bad.field_violations] == [
        ("ttl", "too long")
    ]


@pytest.mark.parametrize("leaf", leaves(errors.NotServing), ids=lambda leaf: leaf.__name__)
def test_what_passes_says_when_to_try_again(leaf: type[GpudError]) -> None:
    _, rest = details(example(leaf))
    retry = error_details_pb2.RetryInfo()
    assert rest[0].Unpack(retry)
    assert retry.retry_delay.seconds >= 1


def test_a_bug_tells_its_id_and_nothing_else() -> None:
    status = internal_status("abc123")
    assert status.code == Code.INTERNAL.value[0]
    assert "error_id=abc123" in status.message
