"""Alerts posted to real servers, those that lie, hang and refuse among them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.telemetry.alerts.alert import AlertState
from gpud.telemetry.alerts.notices import Notice, body
from gpud.telemetry.alerts.sinks.sink import SinkFailed
from gpud.telemetry.alerts.sinks.webhook import Webhook
from tests.access.paper import Office
from tests.telemetry.alerts.scenes import WALL, alert
from tests.telemetry.alerts.sinks.receiving import Receiver, receiving

BODY = body(Notice(sink="hook", alert=alert(), told=AlertState.FIRING, wall=WALL), "host1")
KEY = "k" * 20


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def webhook(url: str, **fields) -> Webhook:
    return Webhook(**{"name": "hook", "url": url, "timeout_seconds": 30.0} | fields)


async def failed(sink: Webhook) -> SinkFailed:
    with pytest.raises(SinkFailed) as caught:
        await sink.send(BODY)
    return caught.value


async def test_it_is_posted_as_json(receiver: Receiver) -> None:
    await webhook(f"{receiver.url}/hooks/x?team=a").send(BODY)
    ((path, headers, got),) = receiver.got
    assert (path, got) == ("/hooks/x?team=a", BODY)
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("gpud/")
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("header", "shown"), [("Authorization", f"Bearer {KEY}"), ("X-Api-Key", KEY)]
)
async def test_a_key_is_shown_in_a_header(
    receiver: Receiver, tmp_path: Path, header: str, shown: str
) -> None:
    path = tmp_path / "key"
    path.write_text(f"# of the pager\n{KEY}\n")
    path.chmod(0o600)
    await webhook(receiver.url, secret_file=str(path), secret_header=header).send(BODY)
    assert receiver.got[0][1][header.lower()] == shown
    path.chmod(0o644)
    refused = await failed(webhook(receiver.url, secret_file=str(path)))
    assert "is open to others" in refused.problem
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("status", "is_final", "words"),
    [
        (500, False, "it answers 500 Internal Server Error"),
        (503, False, "it answers 503 Service Unavailable"),
        (599, False, "it answers 599"),
        (429, False, "it answers 429 Too Many Requests"),
        (400, True, "it answers 400 Bad Request"),
        (404, True, "it answers 404 Not Found"),
        (302, True, "it answers 302, a redirect, which is not followed"),
        (308, True, "it answers 308, a redirect, which is not followed"),
    ],
)
async def test_what_is_no_success(
    receiver: Receiver, status: int, is_final: bool, words: str
) -> None:
    """The status alone is told: what the server says has the path in it, a secret of many."""
    receiver.answers = [status]
    refused = await failed(webhook(f"{receiver.url}/services/SECRET?token=SECRET"))
    assert (refused.problem, refused.is_final) == (words, is_final)
    assert len(receiver.got) == 1


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        refused = await failed(webhook(f"http://127.0.0.1:{held.getsockname()[1]}/x"))
    assert (refused.problem, refused.is_final) == ("nothing listens there", False)


async def test_one_that_does_not_answer_is_left_in_time(receiver: Receiver) -> None:
    receiver.hangs = True
    refused = await failed(webhook(receiver.url, timeout_seconds=0.2))
    assert refused.problem == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "closed before an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak http"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak http"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "does not speak http"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", "closed before an answer"),
        (b"x" * 100_000, "chunk"),
    ],
)
async def test_garbage_is_no_answer(said: bytes, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        refused = await failed(webhook(f"http://127.0.0.1:{port}/"))
    assert words in refused.problem
    assert not refused.is_final


@pytest.mark.parametrize(
    ("line", "words"), [(b"a:\n", "more than 100 headers"), (b"a: b ", "chunk")]
)
async def test_of_an_endless_answer_little_is_read(line: bytes, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                writer.write(line * 1000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        refused = await failed(webhook(f"http://127.0.0.1:{port}/"))
    assert words in refused.problem
    assert not refused.is_final


async def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(tmp_path)
    office.serve(office.server("localhost"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(office.path("certificate"), office.path("key"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sink = webhook(f"https://localhost:{port}/")
        refused = await failed(sink)
        assert "its certificate is not trusted" in refused.problem
        assert not refused.is_final
        # As the system would, had the administrator added that CA.
        monkeypatch.setenv("SSL_CERT_FILE", str(office.path("client_ca")))
        await sink.send(BODY)
