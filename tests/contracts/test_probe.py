"""What a probe promises: one suite, on the fake and on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gpud.engines.api_key import ApiKey
from gpud.engines.probe import Answer, HttpProbe, Probe, ProbeFailed, ProbeFault
from tests.fakes.probe import FakeProbe

# A server for one path: what it sends, byte by byte where that matters; None: it says nothing.
Serve = Callable[[bytes | None], Awaitable[tuple[Probe, str]]]

ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok": Answer(status=200, body=b"ok"),
    b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n": Answer(status=503, body=b""),
    b"HTTP/1.0 200 OK\r\n\r\nto the end": Answer(status=200, body=b"to the end"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n": Answer(
        status=200, body=b"ab"
    ),
    b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n": Answer(
        status=302, body=b""
    ),
}
BROKEN = [
    b"",
    b"SSH-2.0-x\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 * 1024 * 1024),
]


@pytest.fixture(params=["fake", "real"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    servers = []

    async def start(sent: bytes | None) -> tuple[Probe, str]:
        if request.param == "fake":
            told = ANSWERS.get(sent) if sent is not None else ProbeFault.TIMEOUT
            return FakeProbe({"/x": told or ProbeFault.BROKEN}), "http://127.0.0.1:1/x"
        silence = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if sent is None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                await reader.read()  # until the client has enough
                silence.set()
            else:
                writer.write(sent)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return HttpProbe(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


KeyServer = tuple[str, list[bytes]]


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    """Says 200 to everything; the heads of all requests."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", heads
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("sent", ANSWERS)
async def test_whole_answers_are_returned_whatever_their_status(serve: Serve, sent: bytes) -> None:
    probe, url = await serve(sent)
    assert await probe.get(url, 5) == ANSWERS[sent]
    assert await probe.post_json(url, {"a": 1}, 5) == ANSWERS[sent]


async def test_a_key_goes_with_the_request_and_nothing_goes_without(key_server: KeyServer) -> None:
    url, heads = key_server
    await HttpProbe().get(url, 5, ApiKey("a-key-of-16-bytes"))
    await HttpProbe().post_json(url, {"a": 1}, 5, ApiKey("another-of-16-bytes"))
    await HttpProbe().get(url, 5)
    shown = [
        [line for line in head.split(b"\r\n") if line.startswith(b"Authorization:")]
        for head in heads
    ]
    assert shown == [
        [b"Authorization: Bearer a-key-of-16-bytes"],
        [b"Authorization: Bearer another-of-16-bytes"],
        [],
    ]


async def test_a_query_goes_with_the_path(key_server: KeyServer) -> None:
    url, heads = key_server
    await HttpProbe().get(f"{url}?level=2", 5.0)
    assert heads[-1].split(b"\r\n")[0].endswith(b"?level=2 HTTP/1.1")


@pytest.mark.parametrize("sent", BROKEN)
async def test_what_is_no_answer_is_broken(serve: Serve, sent: bytes) -> None:
    probe, url = await serve(sent)
    with pytest.raises(ProbeFailed) as failed:
        await probe.get(url, 5)
    assert failed.value.fault is ProbeFault.BROKEN


async def test_an_answer_that_does_not_end_runs_into_the_limit(serve: Serve) -> None:
    probe, url = await serve(None)
    with pytest.raises(ProbeFailed) as failed:
        await probe.get(url, 0.05)
    assert failed.value.fault is ProbeFault.TIMEOUT


@pytest.mark.parametrize("probe", [FakeProbe(), HttpProbe()], ids=["fake", "real"])
async def test_where_nothing_listens_it_is_refused(probe: Probe) -> None:
    with pytest.raises(ProbeFailed) as failed:
        await probe.get("http://127.0.0.1:1/x", 5)
    assert failed.value.fault is ProbeFault.REFUSED
    assert "127.0.0.1:1" in str(failed.value)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://localhost:1/", "https://127.0.0.1/", "file:///etc/passwd"]
)
async def test_only_loopback_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match=r"loopback|IPv4"):
        await HttpProbe().get(url, 1)
