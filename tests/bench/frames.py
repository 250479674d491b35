"""`python -m tests.bench.frames SOCKET`: the floor of a feed: frames to all who are connected.

One frame of so many bytes to each, so many times a second, over a Unix socket on uvloop where
there is one; nothing is looked at, counted or asked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from typing import cast

from tests.bench.followers import HEAD


class Connection(asyncio.Protocol):
    """One who is connected."""

    def __init__(self, connected: set[asyncio.Transport]) -> None:
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It gets the frames from now on."""
        # uvloop's is none by its class.
        self._transport = cast("asyncio.Transport", transport)
        self._connected.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """And no more."""
        self._connected.discard(self._transport)


async def serve(arguments: argparse.Namespace) -> None:
    """Until SIGTERM."""
    connected: set[asyncio.Transport] = set()
    body = os.urandom(arguments.size)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_unix_server(
        lambda: Connection(connected), arguments.socket, backlog=1024
    )
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    due = loop.time()
    while not stop.is_set():
        frame = HEAD.pack(len(body), time.time()) + body
        for each in tuple(connected):
            each.write(frame)
        due += 1 / arguments.hertz
        await asyncio.sleep(max(0.0, due - loop.time()))
    server.close()


def main() -> None:
    """As the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.frames")
    parser.add_argument("socket")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--hertz", type=float, default=10.0)
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(arguments))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments))


if __name__ == "__main__":
    main()
