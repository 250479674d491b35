"""The listener, with clients that behave and clients that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from gpud.errors import ConfigInvalid
from gpud.http.connection import Limits
from gpud.http.request import MAX_HEAD_BYTES, Answer, Request, text
from gpud.http.server import HttpServer

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
# Ends a hang, and nothing else.
PATIENCE_SECONDS = 60.0


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, to_head: bool = False) -> tuple[int, bytes]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = b"" if to_head else await self.reader.readexactly(length)
        return int(head.split()[1]), body

    async def get(self, path: bytes = b"/") -> tuple[int, bytes]:
        self.send(GET % path)
        return await self.answer()

    async def ended(self) -> bytes:
        """What still came before the server ended the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@dataclass
class Site:
    """A server whose answers are `/` → ok, `/big`, `/bug`; what was asked is kept."""

    limits: Limits = field(default_factory=Limits)
    asked: list[str] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    big: bytes = b""

    def __post_init__(self) -> None:
        self.server = HttpServer("127.0.0.1:0", self.answer, self.limits)

    def answer(self, request: Request) -> Answer:
        self.asked.append(request.path)
        if request.path == "/bug":
            raise ValueError("of ours")
        return Answer(body=self.big) if request.path == "/big" else text("ok")

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[Site]:
    site = Site(limits=Limits(**limits))  # type: ignore[arg-type]
    await site.server.start()
    try:
        yield site
    finally:
        site.server.close()
        for client in site.clients:
            client.writer.close()


async def test_one_connection_carries_many_requests() -> None:
    async with serving() as site:
        client = await site.connect()
        for _ in range(3):
            assert await client.get() == (200, b"ok\n")
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        assert await client.answer(to_head=True) == (200, b"")
        assert await client.get(b"/again") == (200, b"ok\n")
        assert site.server.connections == 1


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with serving() as site:
        client = await site.connect()
        client.send(b"".join(GET % path for path in (b"/1", b"/2", b"/3")) + (GET % b"/4")[:9])
        assert [await client.answer() for _ in range(3)] == [(200, b"ok\n")] * 3
        assert site.asked == ["/1", "/2", "/3"]
        client.send((GET % b"/4")[9:])
        await client.answer()
        assert site.asked[3:] == ["/4"]


async def test_who_wants_no_more_is_let_go() -> None:
    async with serving() as site:
        client = await site.connect()
        client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert await client.answer() == (200, b"ok\n")
        assert await client.ended() == b""
        old = await site.connect()
        old.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await old.ended()).endswith(b"\r\n\r\nok\n")


async def test_who_ends_its_side_still_gets_its_answer() -> None:
    async with serving() as site:
        client = await site.connect()
        client.send(GET % b"/")
        client.writer.write_eof()
        assert (await client.ended()).endswith(b"ok\n")


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost"])
async def test_a_head_that_does_not_come_ends_the_connection(start: bytes) -> None:
    async with serving(head=0.05) as site:
        client = await site.connect()
        client.send(start)
        assert await client.ended() == b""
        assert site.server.connections == 0


async def test_a_head_that_drips_ends_the_connection_and_holds_up_nobody() -> None:
    async with serving(head=0.5) as site:
        slow, answered = await site.connect(), 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not slow.reader.at_eof():
                    slow.send(b"X")
                    await slow.writer.drain()
                    other = await site.connect()
                    assert await other.get() == (200, b"ok\n")
                    other.writer.close()
                    answered += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(slow.reader.read(1), 0.005)
        assert answered > 0
        assert await slow.ended() == b""


async def test_the_rest_of_a_next_head_may_not_drip_either() -> None:
    async with serving(head=0.5, rest=PATIENCE_SECONDS * 2) as site:
        client = await site.connect()
        client.send(GET % b"/" + b"GET /")
        assert await client.answer() == (200, b"ok\n")
        assert await client.ended() == b""


async def test_who_rests_too_long_is_let_go() -> None:
    async with serving(rest=0.05) as site:
        client = await site.connect()
        assert await client.get() == (200, b"ok\n")
        assert await client.ended() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /" + b"a" * MAX_HEAD_BYTES,
        (GET % b"/") * 500,
    ],
    ids=["huge field", "huge line", "hundreds at once"],
)
async def test_more_than_a_head_may_have_is_refused(head: bytes) -> None:
    async with serving() as site:
        client = await site.connect()
        client.send(head)
        told = await client.ended()
        assert told.startswith(b"HTTP/1.1 431 "), told
        assert site.asked == []
        assert await (await site.connect()).get() == (200, b"ok\n")


async def test_what_is_no_request_is_told_so_and_ends() -> None:
    async with serving() as site:
        client = await site.connect()
        client.send(b"\x16\x03\x01 hello tls\r\n\r\n")
        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        assert site.asked == []


async def test_a_bug_is_an_answer_with_an_id() -> None:
    async with serving() as site:
        client = await site.connect()
        status, told = await client.get(b"/bug")
        assert status == 500
        assert b"a bug; the log has it as" in told
        assert b"of ours" not in told
        assert await client.get() == (200, b"ok\n")


async def test_the_longest_idle_makes_room_for_who_comes() -> None:
    async with serving(connections=3) as site:
        first, second, third = [await site.connect() for _ in range(3)]
        for each in (second, third, first):
            assert await each.get() == (200, b"ok\n")
        assert await (await site.connect()).get() == (200, b"ok\n")
        assert await second.ended() == b""
        assert await first.get() == (200, b"ok\n")
        assert site.server.connections == 3


async def test_two_hundred_silent_ones_keep_nobody_out() -> None:
    async with serving(connections=8) as site:
        silent = [await site.connect() for _ in range(200)]
        assert await (await site.connect()).get() == (200, b"ok\n")
        assert site.server.connections <= 8
        assert len(silent) == 200


async def test_who_takes_no_answer_is_let_go_and_holds_up_nobody() -> None:
    async with serving(write=0.1) as site:
        # More than the kernel buffers on the way.
        site.big = b"x" * (32 * 1024 * 1024)
        with socket.create_connection(("127.0.0.1", site.server.port)) as deaf:
            deaf.sendall(GET % b"/big" + GET % b"/never")
            async with asyncio.timeout(PATIENCE_SECONDS):
                present = 2
                while "/big" not in site.asked or present > 1:
                    other = await site.connect()
                    assert await other.get() == (200, b"ok\n")
                    present = site.server.connections
                    other.writer.close()
                    await other.writer.wait_closed()
        assert "/never" not in site.asked


async def test_a_taken_address_is_refused_with_the_fix() -> None:
    async with serving() as site:
        with pytest.raises(ConfigInvalid, match=r"set another http\.listen"):
            HttpServer(f"127.0.0.1:{site.server.port}", site.answer)


async def test_ipv6() -> None:
    server = HttpServer("[::1]:0", lambda _: text("six"))
    await server.start()
    try:
        client = Client(*await asyncio.open_connection("::1", server.port))
        assert await client.get() == (200, b"six\n")
        client.writer.close()
    finally:
        server.close()


async def test_who_is_connected_at_the_end_is_let_go() -> None:
    async with serving() as site:
        client = await site.connect()
        await client.get()
        site.server.close()
        assert await client.ended() == b""
        assert site.server.connections == 0
