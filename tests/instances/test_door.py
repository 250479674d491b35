"""The door before an engine's port: who comes is told, who is inside stays, gpud gets in."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gpud.engines.probe import DOOR_HEADER, HttpProbe
from gpud.instances.draining.door import LOOPBACK, CannotShut, Door

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """One that answers each request of a connection, and shares its port or not."""

    port: int
    connections: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER)
                await writer.drain()
                if b"Connection: close" in head:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            await writer.wait_closed()
            self.open -= 1


async def served(*, shares: bool) -> tuple[Server, asyncio.Server]:
    listening = socket.socket()
    if shares:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind((LOOPBACK, 0))
    made = Server(port=listening.getsockname()[1])
    return made, await asyncio.start_server(made.serve, sock=listening)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, listening = await served(shares=True)
    yield made
    listening.close()
    await all_gone(made)


async def all_gone(made: Server) -> None:
    """Whoever was turned away, or asked the server, has been let go."""
    async with asyncio.timeout(60):
        while made.open:  # noqa: ASYNC110 — the kernel's doing
            await asyncio.sleep(0)


async def ask(port: int, body: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of what comes back over a connection of its own."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    said = await reader.readexactly(length)
    writer.close()
    return head, said


async def test_all_who_come_are_turned_away_until_it_opens(server: Server) -> None:
    door = Door(server.port, "it sleeps")
    await door.shut()
    for body in (b"", b"x" * 200_000):
        for _ in range(10):
            head, said = await ask(server.port, body)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in head
            assert json.loads(said)["error"]["message"] == "it sleeps"
    assert server.connections == 0
    door.open()
    door.open()
    assert (await ask(server.port))[1] == b"ok"


async def test_who_is_inside_stays(server: Server) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    door = Door(server.port, "")
    await door.shut()
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    door.open()
    writer.close()


async def test_gpud_gets_in(server: Server) -> None:
    door = Door(server.port, "")
    await door.shut()
    probe = HttpProbe()
    for _ in range(10):
        answer = await probe.get(f"http://{LOOPBACK}:{server.port}/health", 5.0)
        assert (answer.status, answer.body) == (200, b"ok")
    door.open()


async def test_a_server_that_only_says_so_in_its_text_is_not_asked_twice(server: Server) -> None:
    body = f"\r\n{DOOR_HEADER}\r\n".encode()
    asked = 0

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        writer.close()

    listening = await asyncio.start_server(tell, LOOPBACK, 0)
    url = f"http://{LOOPBACK}:{listening.sockets[0].getsockname()[1]}/"
    assert (await HttpProbe().get(url, 5.0)).body == body
    assert asked == 1
    listening.close()


async def test_a_server_that_does_not_share_its_port_is_told() -> None:
    made, listening = await served(shares=False)
    door = Door(made.port, "")
    with pytest.raises(CannotShut, match="it does not share its port"):
        await door.shut()
    assert (await ask(made.port))[1] == b"ok"
    door.open()
    listening.close()
    await all_gone(made)


async def test_who_says_nothing_is_let_go(server: Server) -> None:
    door = Door(server.port, "")
    await door.shut()
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()
    door.open()
