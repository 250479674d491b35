"""The JSON shape: what programs that read gpuctl's output are written against."""

from __future__ import annotations

import json
import math
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.messages import duration, duration_text, enum_prefix, to_plain
from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
    telemetry_pb2,
)
from tests.gpuctl import samples

FILES: list[ModuleType] = [
    devices_pb2, instances_pb2, models_pb2, node_pb2, reservations_pb2, telemetry_pb2,
]  # fmt: skip
TYPES = [m for file in FILES for m in file.DESCRIPTOR.message_types_by_name.values()]
ENUMS = [e for file in FILES for e in file.DESCRIPTOR.enum_types_by_name.values()]


@pytest.mark.parametrize("descriptor", TYPES, ids=lambda d: d.name)
def test_an_empty_message_shows_every_field_that_cannot_be_unknown(descriptor: Any) -> None:
    plain = to_plain(GetMessageClass(descriptor)())
    assert list(plain) == [f.name for f in descriptor.fields if not f.has_presence]
    zeros = ("", 0)
    for field in descriptor.fields:
        if field.name in plain and field.enum_type is None:
            assert plain[field.name] in ([], {}) or plain[field.name] in zeros
        elif field.name in plain and not field.is_repeated:
            assert plain[field.name].endswith("_UNSPECIFIED")


@pytest.mark.parametrize("enum", ENUMS, ids=lambda e: e.name)
def test_every_value_of_an_enum_begins_with_its_prefix(enum: Any) -> None:
    assert len(enum_prefix(enum)) > 1
    assert all(value.name.startswith(enum_prefix(enum)) for value in enum.values)


def test_a_reservation_is_plain_values_under_the_names_of_the_proto() -> None:
    assert to_plain(samples.reservation()) == {
        "name": "reservations/r-4m2k",
        "owner": "ada@rig",
        "state": "RESERVATION_STATE_GRANTED",
        "kind": "RESERVATION_KIND_LEASED",
        "grants": [
            {
                "device": "devices/SIM-0000",
                "bytes": 4294967296,
                "enforcement": "ENFORCEMENT_LEDGER",
            }
        ],
        "generation": 1,
        "create_time": "2027-01-15T07:59:54Z",
        "expire_time": "2027-01-15T08:00:54Z",
        "ttl": "60s",
        "environment": {"CUDA_VISIBLE_DEVICES": "SIM-0000", "GPUD_RESERVATION": "r-4m2k"},
        "processes": [],
        "labels": {"team": "search"},
        "instance": "",
        "state_reason": "",
        "sharing": "SHARING_SHARED",
        "priority": "PRIORITY_NORMAL",
        "preemptible": False,
        "wait_reason": "",
        "shapes": [
            {
                "bytes": 4294967296,
                "device_count": 1,
                "devices": [],
                "kind": "DEVICE_KIND_UNSPECIFIED",
            }
        ],
        "host_bytes": 0,
        "attachments": [],
        "within": "",
        "standing": False,
        "placement": "PLACEMENT_PACK",
    }


def test_an_unknown_reading_is_absent_and_a_known_zero_is_there() -> None:
    plain = to_plain(samples.silent_card())
    assert "grantable_bytes" not in plain
    assert "memory_used_bytes" not in plain["sample"]
    assert plain["granted_bytes"] == 0
    known = to_plain(samples.card())
    assert known["unattributed_bytes"] == 0


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (Duration(seconds=60), "60s"),
        (Duration(seconds=1, nanos=500_000_000), "1.5s"),
        (Duration(nanos=1), "0.000000001s"),
        (Duration(nanos=-250_000_000), "-0.25s"),
        (Duration(), "0s"),
    ],
)
def test_durations(span: Duration, text: str) -> None:
    assert duration_text(span) == text


def test_a_span_reaches_the_wire_exactly() -> None:
    assert duration(0.1) == Duration(nanos=100_000_000)
    assert duration(90) == Duration(seconds=90)


def test_a_value_of_a_newer_gpud_is_its_number() -> None:
    device = devices_pb2.Device.FromString(b"\x20\x63")  # kind (field 4) = 99
    assert to_plain(device)["kind"] == 99


@pytest.mark.parametrize(("value", "text"), [(math.nan, "NaN"), (-math.inf, "-Infinity")])
def test_what_json_has_no_number_for(value: float, text: str) -> None:
    plain = to_plain(devices_pb2.Sample(power_watts=value))
    assert plain["power_watts"] == text
    json.dumps(plain, allow_nan=False)


def test_bytes_stay_exact_and_times_are_rfc_3339() -> None:
    message: Message = devices_pb2.Device(
        memory_total_bytes=2**63 - 1,
        sample=devices_pb2.Sample(time=Timestamp(seconds=samples.NOW, nanos=5_000_000)),
    )
    plain = json.loads(json.dumps(to_plain(message)))
    assert plain["memory_total_bytes"] == 2**63 - 1
    assert plain["sample"]["time"] == "2027-01-15T08:00:00.005Z"
