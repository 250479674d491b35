"""S1: what an answer costs the server, beyond what grpc itself costs.

The bar is judged on an empty answer through all that guards a method of gpud: the list of
instances, of which there are none. grpc.health.v1 passes by the guard, and GetNode fills a message
that the floor has ready-made; both are told beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpud.v1 import instances_pb2, instances_pb2_grpc, node_pb2, node_pb2_grpc
from tests.bench.calls import Burst, Call, burst
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import Server, bare, gpud, on_first_core, on_other_cores

CALLS = 2000
CLIENTS = 8
S1 = Bar(must=1.30, aim=1.10)
TOLD = Bar()


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Server CPU per call, both servers in turn."""
    async with AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(gpud(folder / "gpud"))
            answer = folder / "node"
            answer.write_bytes((await _get_node(ours)()).SerializeToString())
            floor = await stack.enter_async_context(bare(folder / "bare", "--answer", str(answer)))
        compare = _Comparison(ours, floor, rounds)
        with on_other_cores():
            return [
                await compare.of("S1", "empty call, server CPU", empty_call, S1),
                await compare.of("", "  health check", _health_check, TOLD),
                await compare.of("", "  GetNode, filled anew ÷ ready-made", _get_node, TOLD),
            ]


def empty_call(server: Server) -> Call:
    """The empty unary call that the other rows are held against, too."""
    method = instances_pb2_grpc.InstanceServiceStub(server.channel).ListInstances
    request = instances_pb2.ListInstancesRequest()
    return lambda: method(request)


def _health_check(server: Server) -> Call:
    method = health_pb2_grpc.HealthStub(server.channel).Check  # type: ignore[attr-defined]
    request = health_pb2.HealthCheckRequest()
    return lambda: method(request)


def _get_node(server: Server) -> Call:
    method = node_pb2_grpc.NodeServiceStub(server.channel).GetNode
    request = node_pb2.GetNodeRequest()
    return lambda: method(request)


class _Comparison:
    """The same calls to both servers, in turn."""

    def __init__(self, ours: Server, floor: Server, rounds: int) -> None:
        self._servers = ours, floor
        self._rounds = rounds

    async def of(
        self, row: str, quantity: str, call_of: Callable[[Server], Call], bar: Bar
    ) -> Result:
        """CPU seconds per call in each round; one more round goes before, to warm up."""
        calls = [call_of(server) for server in self._servers]
        for call in calls:
            await burst(call, CALLS // 4, CLIENTS)
        rounds: list[tuple[float, ...]] = []
        bursts: list[tuple[Burst, ...]] = []
        for _ in range(self._rounds):
            pairs = [
                await _cpu_per_call(server, call)
                for server, call in zip(self._servers, calls, strict=True)
            ]
            costs, done = zip(*pairs, strict=True)
            rounds.append(costs)
            bursts.append(done)
        details = {
            f"{side}_{name}_seconds": statistics.median(
                getattr(done[index], name) for done in bursts
            )
            for index, side in enumerate(("ours", "other"))
            for name in ("p50", "p99")
        }
        return Result(
            row=row,
            quantity=quantity,
            unit=Unit.MICROSECONDS,
            rounds=tuple((ours, floor) for ours, floor in rounds),
            bar=bar,
            details=details,
        )


async def _cpu_per_call(server: Server, call: Call) -> tuple[float, Burst]:
    before = server.cpu_seconds()
    done = await burst(call, CALLS, CLIENTS)
    return (server.cpu_seconds() - before) / CALLS, done
