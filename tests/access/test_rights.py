"""Every method has a role, and nothing else does; what is not listed is nobody's."""

from __future__ import annotations

from types import ModuleType

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gpud.access.identity import Role
from gpud.access.rights import RIGHTS, changes
from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
    telemetry_pb2,
)

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
READS = ("Get", "List", "Watch", "Explain", "Estimate", "Tail", "Check", "ServerReflectionInfo")


def test_every_method_of_the_contract_is_in_the_table_and_no_other() -> None:
    assert set(RIGHTS) == METHODS


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_viewer_may_call_what_only_reads(method: str) -> None:
    name = method.partition("/")[2]
    assert (RIGHTS[method] is Role.VIEWER) == name.startswith(READS)
    assert changes(method) == (not name.startswith(READS))


def test_what_is_not_listed_counts_as_a_change() -> None:
    assert changes("gpud.v1.NodeService/Explode")
