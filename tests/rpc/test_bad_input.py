"""Wrong requests: INVALID_ARGUMENT (or NOT_FOUND) naming the field, and nothing has changed."""

from __future__ import annotations

import base64
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import devices_pb2, instances_pb2, models_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.running import GIB, Api, Gpud, calling, refused, refused_stream

Code = grpc.StatusCode
WEEK_SECONDS = 7 * 86400
LONG = "x" * 257
TOO_FAR = base64.b64encode(b"9" * 30).decode()  # a sequence that no journal reaches


def reserve(**fields: Any) -> pb.ReserveRequest:
    return pb.ReserveRequest(**{"bytes": GIB, **fields})


def seconds(whole: int, nanos: int = 0) -> Duration:
    return Duration(seconds=whole, nanos=nanos)


RESERVE = [
    ("bytes", reserve(bytes=0)),
    ("bytes", reserve(bytes=-1)),
    ("bytes", reserve(bytes=2**63 - 1)),
    ("device_count", reserve(device_count=-1)),
    ("device_count", reserve(device_count=65)),
    ("device_count", reserve(devices=["gpu0"], device_count=2)),
    ("devices", reserve(devices=["gpu0", "gpu0"])),
    ("devices", reserve(devices=["gpu0", "devices/gpu0"])),
    ("devices", reserve(devices=["gpu0\0"])),
    ("devices", reserve(devices=[LONG])),
    ("kind", reserve(kind=99)),
    ("ttl", reserve(ttl=seconds(0))),
    ("ttl", reserve(ttl=seconds(-5))),
    ("ttl", reserve(ttl=seconds(0, 999_999_999))),
    ("ttl", reserve(ttl=seconds(WEEK_SECONDS, 1_000))),
    ("ttl", reserve(ttl=seconds(2**62))),
    ("ttl", reserve(ttl=seconds(5, -1))),
    ("ttl", reserve(ttl=seconds(5, 2_000_000_000))),
    ("owner", reserve(owner=LONG)),
    ("owner", reserve(owner="a\nb")),
    ("owner", reserve(owner="a\x1b[31mb")),
    ("labels", reserve(labels={str(n): "" for n in range(65)})),
    ("labels", reserve(labels={"k" * 64: ""})),
    ("labels", reserve(labels={"k\0": ""})),
    ("labels[k]", reserve(labels={"k": LONG})),
    ("request_id", reserve(request_id="x" * 129)),
    ("request_id", reserve(request_id="a\tb")),
]
NAMES = ["", "reservations/", "a\0b", LONG, "a\nb"]
RENEW = [
    *(("name", pb.RenewRequest(name=name)) for name in NAMES),
    *(
        ("ttl", pb.RenewRequest(name="reservations/r-1", ttl=ttl))
        for ttl in (seconds(0), seconds(-1), seconds(WEEK_SECONDS + 1), seconds(3, -3))
    ),
    ("request_id", pb.RenewRequest(name="r-1", request_id="x" * 129)),
]
RELEASE = [
    *(("name", pb.ReleaseRequest(name=name)) for name in NAMES),
    ("request_id", pb.ReleaseRequest(name="r-1", request_id="\x7f")),
]
LISTS = [
    ("page_size", "reservations", "ListReservations", pb.ListReservationsRequest(page_size=-1)),
    ("page_token", "reservations", "ListReservations", pb.ListReservationsRequest(page_token="?")),
    ("states", "reservations", "ListReservations", pb.ListReservationsRequest(states=[99])),
    ("page_size", "devices", "ListDevices", devices_pb2.ListDevicesRequest(page_size=-5)),
    ("page_token", "devices", "ListDevices", devices_pb2.ListDevicesRequest(page_token="\u00fc")),
    ("name", "devices", "GetDevice", devices_pb2.GetDeviceRequest()),
    ("name", "reservations", "GetReservation", pb.GetReservationRequest()),
    ("page_size", "models", "ListModels", models_pb2.ListModelsRequest(page_size=-1)),
    ("page_token", "models", "ListModels", models_pb2.ListModelsRequest(page_token="a")),
    ("name", "models", "GetModel", models_pb2.GetModelRequest()),
    ("states", "instances", "ListInstances", instances_pb2.ListInstancesRequest(states=[99])),
    ("page_size", "instances", "ListInstances", instances_pb2.ListInstancesRequest(page_size=-1)),
    ("name", "instances", "GetInstance", instances_pb2.GetInstanceRequest()),
    ("page_size", "node", "ListEvents", node_pb2.ListEventsRequest(page_size=-1)),
    ("page_token", "node", "ListEvents", node_pb2.ListEventsRequest(page_token="!!")),
    ("page_token", "node", "ListEvents", node_pb2.ListEventsRequest(page_token="YWJj")),
    ("page_token", "node", "ListEvents", node_pb2.ListEventsRequest(page_token=TOO_FAR)),
    ("type", "node", "ListEvents", node_pb2.ListEventsRequest(type=LONG)),
]  # fmt: skip
STREAMS = [
    ("after_sequence", "node", "WatchEvents", node_pb2.WatchEventsRequest(after_sequence=-1)),
    ("interval", "telemetry", "WatchSnapshots",
     telemetry_pb2.WatchSnapshotsRequest(interval=seconds(-1))),
    ("interval", "telemetry", "WatchSnapshots",
     telemetry_pb2.WatchSnapshotsRequest(interval=seconds(86400))),
    ("devices", "telemetry", "WatchSnapshots",
     telemetry_pb2.WatchSnapshotsRequest(devices=["gpu0", "gpu0"])),
    ("lines", "instances", "TailOutput",
     instances_pb2.TailOutputRequest(instance="i", lines=-1)),
    ("name", "instances", "WatchInstance", instances_pb2.WatchInstanceRequest()),
]  # fmt: skip


async def books(api: Api) -> tuple[list[Any], list[tuple[int, int]]]:
    """All that a request may have changed: the promises and each device's bytes."""
    promised = await api.reservations.ListReservations(pb.ListReservationsRequest(page_size=1000))
    shown = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
    return (
        [each.SerializeToString(deterministic=True) for each in promised.reservations],
        [(each.granted_bytes, each.leaked_bytes) for each in shown.devices],
    )


async def assert_refused(
    api: Api, service: str, method: str, request: Message, field: str
) -> None:
    before = await books(api)
    call = getattr(getattr(api, service), method)(request)
    refusal = await (refused_stream(call) if hasattr(call, "read") else refused(call))
    assert refusal.code is Code.INVALID_ARGUMENT, refusal.message
    assert (refusal.reason, refusal.fields) == ("OPTION_INVALID", (field,))
    assert field in refusal.message
    assert await books(api) == before


@pytest.mark.parametrize(("field", "request_"), RESERVE)
async def test_reserve(api: Api, field: str, request_: pb.ReserveRequest) -> None:
    await assert_refused(api, "reservations", "Reserve", request_, field)


@pytest.mark.parametrize(("field", "request_"), RENEW)
async def test_renew(api: Api, field: str, request_: pb.RenewRequest) -> None:
    await assert_refused(api, "reservations", "Renew", request_, field)


@pytest.mark.parametrize(("field", "request_"), RELEASE)
async def test_release(api: Api, field: str, request_: pb.ReleaseRequest) -> None:
    await assert_refused(api, "reservations", "Release", request_, field)


@pytest.mark.parametrize(("field", "service", "method", "request_"), [*LISTS, *STREAMS])
async def test_reads(api: Api, field: str, service: str, method: str, request_: Message) -> None:
    await assert_refused(api, service, method, request_, field)


@pytest.mark.parametrize(
    ("service", "method", "request_", "reason"),
    [
        ("reservations", "Reserve", reserve(devices=["gpu99"]), "DEVICE_NOT_FOUND"),
        ("reservations", "Renew", pb.RenewRequest(name="r-none"), "RESERVATION_NOT_FOUND"),
        ("reservations", "Release", pb.ReleaseRequest(name="r-none"), "RESERVATION_NOT_FOUND"),
        ("reservations", "GetReservation", pb.GetReservationRequest(name="../x"),
         "RESERVATION_NOT_FOUND"),
        ("devices", "GetDevice", devices_pb2.GetDeviceRequest(name="gpu99"), "DEVICE_NOT_FOUND"),
        ("models", "GetModel", models_pb2.GetModelRequest(name="no"), "MODEL_NOT_FOUND"),
        ("models", "EstimateFootprint", models_pb2.EstimateFootprintRequest(model="no"),
         "MODEL_NOT_FOUND"),
        ("instances", "GetInstance", instances_pb2.GetInstanceRequest(name="no"),
         "INSTANCE_NOT_FOUND"),
        ("instances", "LoadModel", instances_pb2.LoadModelRequest(model="no"), "MODEL_NOT_FOUND"),
        ("instances", "UnloadModel", instances_pb2.UnloadModelRequest(instance="no"),
         "INSTANCE_NOT_FOUND"),
        ("instances", "UnloadModel", instances_pb2.UnloadModelRequest(model="no"),
         "MODEL_NOT_FOUND"),
        ("instances", "UnloadModel", instances_pb2.UnloadModelRequest(model="ghost"),
         "INSTANCE_NOT_FOUND"),
        ("instances", "TailOutput", instances_pb2.TailOutputRequest(instance="no"),
         "INSTANCE_NOT_FOUND"),
        ("instances", "WatchInstance", instances_pb2.WatchInstanceRequest(name="no"),
         "INSTANCE_NOT_FOUND"),
        ("telemetry", "GetSnapshot", telemetry_pb2.GetSnapshotRequest(devices=["gpu99"]),
         "DEVICE_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_what_is_not_there(
    api: Api, service: str, method: str, request_: Message, reason: str
) -> None:
    before = await books(api)
    call = getattr(getattr(api, service), method)(request_)
    refusal = await (refused_stream(call) if hasattr(call, "read") else refused(call))
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, reason)
    assert await books(api) == before


@pytest.mark.parametrize("since", [Timestamp(seconds=-(2**60)), Timestamp(nanos=-5)])
async def test_a_strange_moment_is_no_bug_of_ours(api: Api, since: Timestamp) -> None:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(since=since, page_size=1))
    assert answer.events


async def test_a_message_too_large_or_not_protobuf_hurts_nobody(running: Gpud, api: Api) -> None:
    before = await books(api)
    async with calling(running) as other:
        raw = other.channel.unary_unary("/gpud.v1.ReservationService/Reserve")
        for body in (
            b"\xff" * 100,
            b"\x0a\xff\xff\xff\xff\x0f",
            b"\x0a\x80\x80\x80\x01" + b"a" * 2**21,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(body)
            # grpcio answers these before any code of ours runs.
            assert caught.value.code() in {Code.UNKNOWN, Code.INTERNAL, Code.RESOURCE_EXHAUSTED}
            assert "Traceback" not in (caught.value.details() or "")
    assert await books(api) == before


# Model requests: the shared daemon knows one model, whose file is not there.

LOAD = [
    ("model", instances_pb2.LoadModelRequest()),
    ("model", instances_pb2.LoadModelRequest(model="models/")),
    ("model", instances_pb2.LoadModelRequest(model="ghost\0")),
    ("devices", instances_pb2.LoadModelRequest(model="ghost", devices=["gpu0", "gpu0"])),
    ("devices", instances_pb2.LoadModelRequest(model="ghost", devices=["a\nb"])),
    ("owner", instances_pb2.LoadModelRequest(model="ghost", owner=LONG)),
    ("request_id", instances_pb2.LoadModelRequest(model="ghost", request_id="x" * 129)),
    *(
        (
            name,
            instances_pb2.LoadModelRequest(
                model="ghost", options=models_pb2.ModelOptions(**{name: value})
            ),
        )
        for name, value in (
            ("context_length", 0),
            ("context_length", -1),
            ("parallel", 0),
            ("parallel", 100_000),
            ("batch", -1),
            ("ubatch", 0),
            ("cache_type_k", "f16; rm -rf /"),
            ("cache_type_v", "q17"),
            ("flash_attention", "perhaps"),
            ("flash_attention", "--host"),
            ("gpu_layers", -2),
            ("threads", 0),
            ("threads", 100_000),
        )
    ),
]
UNLOAD = [
    ("instance", instances_pb2.UnloadModelRequest()),
    ("instance", instances_pb2.UnloadModelRequest(instance="a", model="b")),
    ("instance", instances_pb2.UnloadModelRequest(instance="instances/")),
    ("grace", instances_pb2.UnloadModelRequest(instance="a", grace=seconds(-1))),
    ("grace", instances_pb2.UnloadModelRequest(instance="a", grace=seconds(10_000))),
    ("request_id", instances_pb2.UnloadModelRequest(instance="a", request_id="x" * 129)),
]


@pytest.mark.parametrize(("field", "request_"), LOAD)
async def test_load(api: Api, field: str, request_: instances_pb2.LoadModelRequest) -> None:
    before = await api.instances.ListInstances(instances_pb2.ListInstancesRequest())
    await assert_refused(api, "instances", "LoadModel", request_, field)
    assert await api.instances.ListInstances(instances_pb2.ListInstancesRequest()) == before


@pytest.mark.parametrize(("field", "request_"), UNLOAD)
async def test_unload(api: Api, field: str, request_: instances_pb2.UnloadModelRequest) -> None:
    await assert_refused(api, "instances", "UnloadModel", request_, field)
