"""ReservationService: what can be wrong in a demand, and in calls on a lease."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gpud.rpc import paging
from gpud.v1 import reservations_pb2 as pb
from tests.rpc.bad_input import values
from tests.rpc.bad_input.method import GIB, WEEK_SECONDS, Method, World, paged
from tests.rpc.bad_input.values import (
    INT64_MAX,
    STALE,
    WRONG_STATE,
    Refused,
    Value,
    Values,
    invalid,
    not_found,
)

MOST_BYTES = 2**62


def _shape(prefix: str) -> Iterator[tuple[str, dict[str, Any], Refused]]:
    """What can be wrong with bytes on a number of devices."""
    for label, size, told in values.number(f"{prefix}bytes", 1, MOST_BYTES, most=INT64_MAX):
        yield f"bytes {label}", {"bytes": size}, told
    for label, count in (("negative", -1), ("one too many", 65), ("2^31-1", 2**31 - 1)):
        yield f"count {label}", {"device_count": count}, invalid(f"{prefix}device_count")
    yield (
        "more than are named",
        {"devices": ["gpu0"], "device_count": 2},
        invalid(f"{prefix}device_count"),
    )


def _demand(request: type[Any]) -> Method:
    """Reserve and Explain."""

    def alternatives() -> Values:
        right = pb.Shape(bytes=GIB)
        yield "one too many", [right] * 17, invalid("alternatives")
        yield "ten thousand", [right] * 10_000, invalid("alternatives")
        for label, wrong, told in _shape("alternatives[1]."):
            yield label, [right, pb.Shape(**{"bytes": GIB, **wrong})], told
        yield "no device", [pb.Shape(bytes=GIB, devices=["-x"])], not_found("DEVICE")

    def enforcement() -> Values:
        yield from values.enum("require_enforcement", 2)
        yield "of a shared device", 2, invalid("require_enforcement")

    return Method(
        request=request,
        base={"bytes": GIB},
        fields={
            "bytes": lambda: values.number("bytes", 1, MOST_BYTES, most=INT64_MAX),
            "device_count": lambda: (
                (label, wrong["device_count"], told)
                for label, wrong, told in _shape("")
                if wrong.keys() == {"device_count"}
            ),
            "devices": values.devices,
            "kind": lambda: values.enum("kind", 4),
            "ttl": lambda: values.span("ttl", 1, WEEK_SECONDS),
            "owner": lambda: values.text("owner"),
            "labels": values.labels,
            "sharing": lambda: values.enum("sharing", 2),
            "placement": lambda: values.enum("placement", 2),
            "priority": lambda: values.enum("priority", 4),
            "max_wait": lambda: values.span("max_wait", 0, WEEK_SECONDS),
            "alternatives": alternatives,
            "host_bytes": lambda: values.number("host_bytes", 0, MOST_BYTES, most=INT64_MAX),
            "require_enforcement": enforcement,
            "numa_node": lambda: values.number("numa_node", 0, 1023),
        },
        free=frozenset({"preemptible"}),
        more=tuple((label, {"bytes": GIB, **wrong}, told) for label, wrong, told in _shape("")),
        harmless={"bytes": 0},
    )


def reservations(world: World) -> dict[str, Method]:
    """Its methods by name."""

    def named() -> Values:
        yield from values.name("name", "reservations", "RESERVATION")

    def span() -> Values:
        return values.span("ttl", 1, WEEK_SECONDS)

    def of_live(request: type[Any], fields: dict[str, Callable[[], Values]]) -> Method:
        """Calls that are about a lease, and fenced."""
        return Method(
            request=request,
            base={"name": world.live},
            fields={"name": named, "generation": values.generation, **fields},
            harmless={"name": ""},
        )

    reserve = _demand(pb.ReserveRequest)
    renew = of_live(pb.RenewRequest, {"ttl": span, "request_id": values.request_id})
    release = of_live(pb.ReleaseRequest, {"request_id": values.request_id})
    keep_alive = of_live(pb.KeepAliveRequest, {"ttl": span})
    held: tuple[Value, ...] = (("what is held", {"name": world.held}, WRONG_STATE),)
    over = ("what has ended", {"name": world.ended}, WRONG_STATE)
    stale = ("ended, and stale", {"name": world.ended, "generation": 7}, STALE)
    return {
        "Reserve": replace(
            reserve,
            fields={**reserve.fields, "request_id": values.request_id},
            free=reserve.free | {"validate_only"},
        ),
        "Explain": _demand(pb.ExplainRequest),
        "Renew": replace(renew, more=(*held, over, stale)),
        "Release": replace(release, more=(*held, stale)),
        "KeepAlive": replace(keep_alive, more=(stale,)),
        "AttachProcess": _attach(world, named),
        "GetReservation": Method(request=pb.GetReservationRequest, fields={"name": named}),
        "WatchReservation": Method(request=pb.WatchReservationRequest, fields={"name": named}),
        "ListReservations": Method(
            request=pb.ListReservationsRequest,
            fields=paged(pb.ListReservationsRequest, "not a moment/r-1")
            | {"states": lambda: values.enum("states", 6, repeated=True)},
            free=frozenset({"owner"}),
            more=tuple(
                (
                    f"a token with the moment {moment}",
                    {"page_token": paging.encode(f"{moment}/r-1", pb.ListReservationsRequest())},
                    invalid("page_token"),
                )
                for moment in ("nan", "inf", "-inf", "")
            ),
        ),
    }


def _attach(world: World, named: Callable[[], Values]) -> Method:
    own = os.getpid()

    def pids() -> Values:
        for label, pid in (
            ("0", 0),
            ("negative", -1),
            ("the type's least", -(2**31)),
            ("init", 1),
            ("a kernel thread", 2),
            ("nobody's", 2**31 - 1),
            ("gpud itself", world.gpud_pid),
        ):
            yield label, pid, invalid("pid")

    def cgroups() -> Iterator[tuple[str, dict[str, Any], Refused]]:
        for label, path in (
            ("relative", "a/b"),
            ("the root", "/"),
            ("the root, longer", "///"),
            ("traversal", "/../etc"),
            ("traversal inside", "/a/../../b"),
            ("an empty part", "/a//b"),
            ("a flag", "--help"),
            ("none", "/there/is/none/of/this/name"),
            ("one too long", "/" + "x" * 4096),
            *values.UNPRINTABLE,
        ):
            yield f"cgroup {label}", {"name": world.live, "cgroup": path}, invalid("cgroup")

    return Method(
        request=pb.AttachProcessRequest,
        base={"name": world.live, "pid": own},
        fields={
            "name": named,
            "generation": values.generation,
            "request_id": values.request_id,
            "pid": pids,
            "cgroup": lambda: iter([("beside a pid", "/a", invalid("cgroup"))]),
            "start_time": lambda: iter(
                (label, moment, invalid("start_time"))
                for label, moment in (("of another", 1), ("negative", -1), ("late", 2**62))
            ),
        },
        more=(
            ("neither of the two", {"name": world.live}, invalid("pid")),
            (
                "a cgroup that started",
                {"name": world.live, "cgroup": "/a", "start_time": 1},
                invalid("start_time"),
            ),
            ("to what has ended", {"name": world.ended, "pid": own}, WRONG_STATE),
            *cgroups(),
        ),
        harmless={"name": ""},
    )
