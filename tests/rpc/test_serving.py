"""What grpc.health.v1 answers: SERVING from READY on, and not a moment before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpud.access.access import Access
from gpud.access.audit import Audit
from gpud.access.doors import Door, DoorKind
from gpud.access.identity import Role
from gpud.access.mint import Mint
from gpud.clock import SystemClock
from gpud.rpc.server import RpcServer, SocketPlace
from gpud.settings import Audit as AuditSettings
from gpud.settings import Config

Status = health_pb2.HealthCheckResponse


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[RpcServer]:
    clock = SystemClock()
    audit = Audit(AuditSettings(), tmp_path, clock)
    access = Access(Config(), Mint(clock, "here"), audit, clock, lambda _: None)
    server = RpcServer([], access)
    door = Door(kind=DoorKind.SOCKET, label="sock", role=Role.VIEWER)
    server.bind([SocketPlace(door=door, path=tmp_path / "sock", key="server.socket", mode=0o600)])
    await server.start()
    yield server
    await server.stop()


async def test_a_server_that_started_does_not_serve_until_it_is_told_so(
    started: RpcServer, tmp_path: Path
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'sock'}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == Status.NOT_SERVING
        await started.set_serving(True)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == Status.SERVING
