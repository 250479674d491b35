"""Loads, unloads and completions as a client does them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from gpud.v1 import devices_pb2, node_pb2, telemetry_pb2
from gpud.v1 import instances_pb2 as pb
from tests.running import Api

# Only to end a hang: a host may be ten times slower than the one that a test was written on.
PATIENCE_SECONDS = 120.0


async def load(api: Api, model: str = "tiny", device: str = "host", **fields: Any) -> pb.Instance:
    """Load to READY; the last message's instance."""
    return (await load_messages(api, model, device, **fields))[-1].instance


async def load_messages(
    api: Api, model: str = "tiny", device: str = "host", **fields: Any
) -> list[pb.LoadModelResponse]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        request = pb.LoadModelRequest(model=model, devices=[device], **fields)
        return [message async for message in api.instances.LoadModel(request)]


async def unload(api: Api, **fields: Any) -> list[pb.UnloadModelResponse]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = api.instances.UnloadModel(pb.UnloadModelRequest(**fields))
        return [message async for message in call]


async def reaches(api: Api, name: str, state: int) -> pb.Instance:
    """The instance once it is in a state; fails if it ends in another."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            if told.instance.state == state:
                return told.instance
    raise AssertionError(f"{name} ended without ever being {pb.InstanceState.Name(state)}")


async def instances(api: Api) -> list[pb.Instance]:
    return list((await api.instances.ListInstances(pb.ListInstancesRequest())).instances)


async def counting(
    api: Api, name: str, holds: Callable[[pb.InstanceMetrics], bool]
) -> pb.InstanceMetrics:
    """What is told of an engine's counters, once it is so; looked at with each tick's snapshot."""
    ticks = api.telemetry.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest())
    metrics = pb.InstanceMetrics()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            async for _ in ticks:
                told = await api.instances.GetInstance(pb.GetInstanceRequest(name=name))
                metrics = told.instance.metrics
                if holds(metrics):
                    return metrics
    raise AssertionError(f"it never was so; the last that was told is\n{metrics}")


async def books(api: Api) -> dict[str, tuple[int, int]]:
    """What the books say of each device: promised and leaked bytes."""
    answer = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
    return {each.alias: (each.granted_bytes, each.leaked_bytes) for each in answer.devices}


async def event_types(api: Api, subject: str = "") -> list[str]:
    """Oldest first."""
    request = node_pb2.ListEventsRequest(subject=subject, page_size=1000)
    return [each.type for each in (await api.node.ListEvents(request)).events][::-1]


@asynccontextmanager
async def streaming(
    endpoint: str, tokens: int, key: str = ""
) -> AsyncIterator[AsyncIterator[str]]:
    """The pieces of a streamed completion of so many tokens, as they come."""
    address = urlsplit(endpoint)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps(
        {"prompt": "the", "max_tokens": tokens, "n_predict": tokens, "stream": True,
         "ignore_eos": True, "seed": 1}
    ).encode()  # fmt: skip
    shown = f"Authorization: Bearer {key}\r\n".encode() if key else b""
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (shown, len(body), body)
    )
    try:
        yield _pieces(reader)
    finally:
        writer.close()


@contextmanager
def held(pid: int) -> Iterator[None]:
    """A process that goes no further for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """The data of each server-sent event until [DONE]; raises when the stream is cut before it."""
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        while line := await reader.readline():
            for data in _data(line):
                if data == "[DONE]":
                    return
                yield data
    raise ConnectionError("the stream was cut")


def _data(line: bytes) -> Iterator[str]:
    if line.startswith(b"data: "):
        yield line.removeprefix(b"data: ").decode().strip()
