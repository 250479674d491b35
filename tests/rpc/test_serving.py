"""What grpc.health.v1 answers: SERVING from READY on, and not a moment before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpud.rpc.server import RpcServer

Status = health_pb2.HealthCheckResponse


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[RpcServer]:
    server = RpcServer([])
    server.bind(tmp_path / "sock", "")
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
