"""`python -m tests.bench.followers SOCKET --streams N --seconds S`: who follows, in a process of
its own.

Each stream takes messages as they come and keeps how old each was. Prints one line of JSON. With
--frames the server speaks no gRPC
but bare frames: the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import struct
import sys
import time
from array import array
from typing import Any

import grpc

from gpud.v1 import telemetry_pb2
from tests.bench.measure import percentile

WATCH = "/gpud.v1.TelemetryService/WatchSnapshots"
STREAMS_PER_CHANNEL = 100
HEAD = struct.Struct(">Id")  # of a frame: how long it is, and when it was sent


class Came:
    """What came on one stream."""

    def __init__(self) -> None:
        self.lags = array("d")
        self.dropped = 0
        self.size = 0

    def take(self, data: bytes) -> None:
        """A message of gpud's."""
        at = time.time()
        snapshot = telemetry_pb2.WatchSnapshotsResponse.FromString(data).snapshot
        self.lags.append(at - snapshot.time.seconds - snapshot.time.nanos / 1e9)
        self.dropped, self.size = snapshot.dropped_count, len(data)


async def follow(channel: grpc.aio.Channel, came: Came, *, stops: bool, request: bytes) -> None:
    """Take all that comes; one that `stops` takes the first and then nothing more."""
    method = channel.unary_stream(WATCH)
    call: Any = method(request)
    while True:
        data = await call.read()
        if data is grpc.aio.EOF:
            raise RuntimeError(f"the stream ended: {call.details()}")
        came.take(data)
        if stops:
            await asyncio.Event().wait()


async def follow_frames(path: str, came: Came) -> None:
    """The same without gRPC."""
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.closing(writer):
        while True:
            head = await reader.readexactly(HEAD.size)
            size, sent = HEAD.unpack(head)
            await reader.readexactly(size)
            came.lags.append(time.time() - sent)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Follow for so many seconds, beginning once every stream has its first message."""
    streams = [Came() for _ in range(arguments.streams)]
    request = telemetry_pb2.WatchSnapshotsRequest()
    request.interval.FromNanoseconds(int(arguments.interval * 1e9))
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(f"unix:{arguments.socket}", options=options)
            )
            for _ in range(1 + (arguments.streams - 1) // STREAMS_PER_CHANNEL)
        ]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [
            tasks.create_task(
                follow_frames(arguments.socket, came)
                if arguments.frames
                else follow(
                    channels[number // STREAMS_PER_CHANNEL],
                    came,
                    stops=number < arguments.stopped,
                    request=request.SerializeToString(),
                )
            )
            for number, came in enumerate(streams)
        ]
        while not all(came.lags for came in streams):
            await asyncio.sleep(0.05)
        print("following", flush=True)
        await asyncio.sleep(arguments.settle)
        before = [len(came.lags) for came in streams]
        began = time.time()
        await asyncio.sleep(arguments.seconds)
        seconds = time.time() - began
        for task in running:
            task.cancel()
    reading = slice(arguments.stopped, None)
    return told(streams[reading], before[reading], seconds)


def told(streams: list[Came], before: list[int], seconds: float) -> dict[str, Any]:
    """Messages of each stream since `before`, and how old they were as they came."""
    taken = [came.lags[first:] for came, first in zip(streams, before, strict=True)]
    lags = [lag for each in taken for lag in each]
    return {
        "seconds": seconds,
        "messages": len(lags),
        "most": max(map(len, taken)),
        "least": min(map(len, taken)),
        "lag_p50": percentile(lags, 0.5) if lags else 0.0,
        "lag_p99": percentile(lags, 0.99) if lags else 0.0,
        "dropped": sum(came.dropped for came in streams),
        "bytes": streams[0].size,
    }


def main() -> None:
    """As the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.followers")
    parser.add_argument("socket")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--stopped", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--settle", type=float, default=1.0)
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--frames", action="store_true")
    arguments = parser.parse_args()
    json.dump(asyncio.run(run(arguments)), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
