"""Every method has a role, and nothing else does; what is not listed is nobody's."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gpud.access.doors import Door, DoorKind
from gpud.access.identity import Role
from gpud.access.rights import RIGHTS, changes
from gpud.rpc.gate import Gate
from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
    telemetry_pb2,
)
from tests.access.test_gate import Scribe, Wire

FILES: tuple[ModuleType, ...] = (
    devices_pb2, instances_pb2, models_pb2, node_pb2, reservations_pb2, telemetry_pb2,
    health_pb2, reflection_pb2,
)  # fmt: skip
METHODS = {
    f"{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# The same messages, under the name that clients ask for first.
METHODS.add("grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
READS = (
    "Get",
    "List",
    "Watch",
    "Explain",
    "Estimate",
    "Tail",
    "Query",
    "Check",
    "ServerReflectionInfo",
)


def test_every_method_of_the_contract_is_in_the_table_and_no_other() -> None:
    assert set(RIGHTS) == METHODS


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_viewer_may_call_what_only_reads(method: str) -> None:
    name = method.partition("/")[2]
    assert (RIGHTS[method] is Role.VIEWER) == name.startswith(READS)
    assert changes(method) == (not name.startswith(READS))


def test_what_is_not_listed_counts_as_a_change() -> None:
    assert changes("gpud.v1.NodeService/Explode")


async def test_what_no_role_may_is_told_alike_whether_it_exists_or_not(tmp_path: Path) -> None:
    door = Door(kind=DoorKind.SOCKET, label="unix:g", role=Role.OPERATOR)
    operator = Gate(door, Scribe(tmp_path))

    async def renumber(request: Any, context: Any) -> None:
        raise AssertionError("nobody may call it")

    name = "gpud.v1.NodeService/Renumber"
    unlisted = grpc.unary_unary_rpc_method_handler(renumber, request_deserializer=bytes)
    listed: Any = operator.handler(name, unlisted).stream_unary
    not_there: Any = operator.unknown(name).stream_stream
    texts = []
    for call in (listed, not_there):
        wire = Told()
        with pytest.raises(grpc.aio.AbortError):
            await call(SimpleNamespace(), wire)
        assert wire.code is grpc.StatusCode.PERMISSION_DENIED
        texts.append(wire.text)
    assert texts == ["cannot call NodeService/Renumber: no role may call it"] * 2


class Told(Wire):
    """Keeps what was said."""

    text = ""

    async def abort_with_status(self, status: Any) -> None:
        self.text = status.details
        await super().abort_with_status(status)
