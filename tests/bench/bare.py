"""`tests.bench.bare SOCKET [--answer FILE] [--nvml] [--tls FOLDER --port PORT]`: the floor.

A minimal server: the same Python, loop and grpcio as gpud, and no more than the methods that are
measured: what grpc.health.v1 offers, an empty list, and a ready-made node. With --nvml it also
reads every card once a second on its loop, the way a short script would. With --tls it listens on
loopback too, with the certificates in a folder of `gpud tls init`, and demands one of each client.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

# As gpud does, before grpc is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gpud.v1 import instances_pb2, node_pb2

INTERVAL_SECONDS = 1.0
PROCESSES_EVERY = 5
# Errors of memory and links, temperatures, energy, counters of the bus: gpud's rare.py.
FIELDS = (1, 3, 4, 29, 30, 38, 45, 52, 59, 82, 83, 94, 142, 143, 144, 145, 197, 198, 230)
LINKS = 4


def unary(answer: Message, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    """A method that answers the same each time."""

    async def call(_: Message, context: Any) -> Message:
        return answer

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=request.FromString,
        response_serializer=type(answer).SerializeToString,
    )


async def serve(arguments: argparse.Namespace) -> None:
    """Until SIGTERM."""
    server = grpc.aio.server()
    node = arguments.answer.read_bytes() if arguments.answer else b""
    get_node = unary(node_pb2.GetNodeResponse.FromString(node), node_pb2.GetNodeRequest)
    list_instances = unary(
        instances_pb2.ListInstancesResponse(), instances_pb2.ListInstancesRequest
    )
    for service, methods in (
        ("gpud.v1.NodeService", {"GetNode": get_node}),
        ("gpud.v1.InstanceService", {"ListInstances": list_instances}),
    ):
        handler = grpc.method_handlers_generic_handler(service, methods)
        server.add_generic_rpc_handlers((handler,))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"unix:{arguments.socket}")
    if arguments.tls:
        server.add_secure_port(f"127.0.0.1:{arguments.port}", certificates(arguments.tls))
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_cards()) if arguments.nvml else None
        await stop.wait()
        if reading is not None:
            reading.cancel()
    await server.stop(0)


def certificates(folder: Path) -> grpc.ServerCredentials:
    """As gpud shows and demands them."""
    pair = (folder / "server-key.pem").read_bytes(), (folder / "server.pem").read_bytes()
    return grpc.ssl_server_credentials(
        [pair], (folder / "ca.pem").read_bytes(), require_client_auth=True
    )


async def read_cards() -> None:
    """The figures that gpud reads, as often as gpud reads them."""
    import pynvml as nvml

    nvml.nvmlInit()
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    tick = 0
    while True:
        for handle in handles:
            nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
            nvml.nvmlDeviceGetUtilizationRates(handle)
            nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            nvml.nvmlDeviceGetPowerUsage(handle)
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            nvml.nvmlDeviceGetComputeMode(handle)
            nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
            if tick % PROCESSES_EVERY == 0:
                read_rarely(nvml, handle)
        tick += 1
        await asyncio.sleep(INTERVAL_SECONDS)


def read_rarely(nvml: Any, handle: Any) -> None:
    """What gpud reads once in five ticks."""
    nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
    nvml.nvmlDeviceGetFanSpeed(handle)
    nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
    nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_VIDEO)
    nvml.nvmlDeviceGetPerformanceState(handle)
    nvml.nvmlDeviceGetMigMode(handle)
    nvml.nvmlDeviceGetEncoderUtilization(handle)
    nvml.nvmlDeviceGetDecoderUtilization(handle)
    nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)
    nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)
    nvml.nvmlDeviceGetFieldValues(handle, FIELDS)
    for link in range(LINKS):
        nvml.nvmlDeviceGetNvLinkState(handle, link)


def main() -> None:
    """Run on the loop that gpud would take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--answer", type=Path)
    parser.add_argument("--nvml", action="store_true")
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--port", type=int)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
