"""A client that speaks HTTP/2 by hand: it acknowledges what it is asked to, and listens."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.access.abuse.frames import (
    END_STREAM,
    PREFACE,
    Frame,
    Kind,
    answer_to,
    frame,
    message,
    opening,
    taken,
)

CHUNK_BYTES = 65_536
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Attacker:
    """One connection, and what came over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    came: Counter[int] = field(default_factory=Counter)  # by Kind
    ended: set[int] = field(default_factory=set)  # streams, by the server
    goaway: Frame | None = None
    closed: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, data: bytes) -> bool:
        """Whether it went out: the server may have gone."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (ConnectionError, ssl.SSLError):
            return False
        return not self.closed

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what comes until something is true of it, or the server has closed."""
        while not (true() or self.closed):
            self.news.clear()
            await self.news.wait()

    async def finish(self, stream: int, path: str) -> None:
        """One proper call: when it has ended all before it has been looked at."""
        await self.send(opening(stream, path) + message(stream))
        await self.until(lambda: stream in self.ended)

    async def listen(self) -> None:
        """Until the server closes."""
        buffer = bytearray()
        try:
            while data := await self.reader.read(CHUNK_BYTES):
                buffer += data
                answers = [self._take(each) for each in taken(buffer)]
                self.news.set()
                if any(answers):
                    self.writer.write(b"".join(answers))
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self.closed = True
            self.news.set()

    def _take(self, came: Frame) -> bytes:
        self.came[came.kind] += 1
        if came.kind == Kind.GOAWAY:
            self.goaway = came
        is_end = came.kind in {Kind.HEADERS, Kind.DATA} and came.flags & END_STREAM
        if is_end or came.kind == Kind.RST_STREAM:
            self.ended.add(came.stream)
        return answer_to(came)


@contextlib.asynccontextmanager
async def attacking(wire: Wire) -> AsyncIterator[Attacker]:
    """Preface and settings are exchanged."""
    made = Attacker(*wire)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(made.listen())
        await made.send(PREFACE + frame(Kind.SETTINGS))
        await made.until(lambda: made.came[Kind.SETTINGS] > 0)
        try:
            yield made
        finally:
            listening.cancel()
            made.writer.transport.abort()


async def over_socket(path: Path) -> Wire:
    return await asyncio.open_unix_connection(path)


async def over_tls(port: int, context: ssl.SSLContext) -> Wire:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


def certified(folder: Path, name: str) -> ssl.SSLContext:
    """A client of the fleet, as `fleet.certified`."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / f"clients/{name}.pem", folder / f"clients/{name}-key.pem")
    context.set_alpn_protocols(["h2"])
    return context
