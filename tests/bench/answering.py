"""S1: what an answer costs the server, beyond what grpc itself costs.

The bar is judged on an empty answer through all that guards a method of gpud: the list of
instances, of which there are none. It is called in three ways: at the socket without a proof of
who calls; there with a user's token, as gpuctl sends it, which the floor is spared; and over TLS
with a client's certificate, which the floor demands as well and does not look at. Also told are
grpc.health.v1, which passes the same gate, and GetNode, which fills a message that the floor has
ready-made.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpud.access.authority.folder import Wanted, issue
from gpud.access.authority.issuing import Client
from gpud.v1 import instances_pb2, instances_pb2_grpc, node_pb2, node_pb2_grpc
from tests.bench.calls import Burst, Call, burst
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import CARDS, Server, bare, gpud, on_first_core, on_other_cores

CALLS = 2000
CLIENTS = 8
S1 = Bar(must=1.30, aim=1.10)
TOLD = Bar()
CLIENT = Client(name="bench", uri="spiffe://fleet/bench")
TLS = """\
[tls]
certificate = "{folder}/server.pem"
key = "{folder}/server-key.pem"
client_ca = "{folder}/ca.pem"
[identities]
"{uri}" = "operator"
"""


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Server CPU per call, both servers in turn."""
    tls = folder / "tls"
    issue(tls, Wanted(servers=("127.0.0.1",), clients=(CLIENT,)), time.time())
    our_port, other_port = _free_ports()
    async with AsyncExitStack() as stack:
        with on_first_core():
            listen = f'listen = "127.0.0.1:{our_port}"\n'
            more = CARDS + TLS.format(folder=tls, uri=CLIENT.uri)
            ours = await stack.enter_async_context(gpud(folder / "gpud", more, listen=listen))
            answer = folder / "node"
            answer.write_bytes((await _get_node(ours)()).SerializeToString())
            words = ("--answer", str(answer), "--tls", str(tls), "--port", str(other_port))
            floor = await stack.enter_async_context(bare(folder / "bare", *words))
        compare = _Comparison(ours, floor, rounds)
        certified = _Comparison(
            await stack.enter_async_context(_certified(ours, tls, our_port)),
            await stack.enter_async_context(_certified(floor, tls, other_port)),
            rounds,
        )
        with on_other_cores():
            return [
                await compare.of("S1", "empty call, server CPU", empty_call, S1),
                await compare.of("S1", "  with a user's token", _as_a_user(ours), S1),
                await certified.of("S1", "  with a certificate, over TLS", empty_call, S1),
                await compare.of("", "  health check", _health_check, TOLD),
                await compare.of("", "  GetNode, filled anew ÷ ready-made", _get_node, TOLD),
            ]


def empty_call(server: Server) -> Call:
    """The empty unary call that the other rows are held against, too."""
    method = instances_pb2_grpc.InstanceServiceStub(server.channel).ListInstances
    request = instances_pb2.ListInstancesRequest()
    return lambda: method(request)


def _as_a_user(ours: Server) -> Callable[[Server], Call]:
    """The empty call with what gpuctl sends; to our server alone, for the floor knows no users."""
    metadata = (("authorization", f"Bearer {_minted(ours)}"),)

    def call_of(server: Server) -> Call:
        if server is not ours:
            return empty_call(server)
        method = instances_pb2_grpc.InstanceServiceStub(server.channel).ListInstances
        request = instances_pb2.ListInstancesRequest()
        return lambda: method(request, metadata=metadata)

    return call_of


def _minted(server: Server) -> str:
    """The token that the auth socket gives us, good for five minutes."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(server.socket.with_name("gpud.auth.sock")))
        return str(json.loads(asking.makefile().readline())["token"])


@asynccontextmanager
async def _certified(server: Server, tls: Path, port: int) -> AsyncIterator[Server]:
    """The same server, called over TLS with a client's certificate."""
    files = "ca.pem", f"clients/{CLIENT.name}-key.pem", f"clients/{CLIENT.name}.pem"
    credentials = grpc.ssl_channel_credentials(*((tls / name).read_bytes() for name in files))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        yield replace(server, channel=channel)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


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
