"""One streamed POST to an engine on this host: its answer handed on as it comes, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from gpud.benchmarking.answers import REFUSED, RequestFailed
from gpud.benchmarking.statistics import Timing
from gpud.clock import Clock
from gpud.engines.api_key import ApiKey

# Nothing comes for so long: a prompt of 128 Ki tokens takes a slow host about as much.
SILENCE_SECONDS: Final = 120.0
_HEAD_LIMIT_BYTES: Final = 64 * 1024
_PART_BYTES: Final = 64 * 1024
_ERROR_BYTES: Final = 2048


class Receiver(Protocol):
    """What an answer's parts are handed to."""

    def take(self, part: bytes, now: float, /) -> None:
        """Some bytes of the body, at this moment. Raises RequestFailed."""
        ...

    def end(self, now: float, /) -> Timing:
        """The body is over. Raises RequestFailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Poster:
    """Where to, and with which key. A connection for each request, literal loopback alone."""

    endpoint: str
    clock: Clock
    key: ApiKey | None = None
    silence_seconds: float = SILENCE_SECONDS

    async def post(self, path: str, body: bytes, receiver: Receiver) -> Timing:
        """Send the body, hand on what comes until it is over. Raises RequestFailed."""
        target = urlsplit(self.endpoint)
        if not ip_address(target.hostname or "").is_loopback:
            raise ValueError(f"{self.endpoint!r} is not on the loopback")
        try:
            async with asyncio.timeout(self.silence_seconds):
                opened = asyncio.open_connection(
                    target.hostname, target.port, limit=_HEAD_LIMIT_BYTES
                )
                reader, writer = await opened
        except ConnectionRefusedError:
            raise RequestFailed(REFUSED, "nothing listens there") from None
        except (OSError, TimeoutError) as error:
            raise RequestFailed(REFUSED, str(error)) from error
        try:
            writer.write(self._encoded(target.netloc, path, body))
            return await self._receive(reader, receiver)
        finally:
            # Not waited for: one that is cancelled is gone at once.
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, receiver: Receiver) -> Timing:
        try:
            async for part in _body(_Silenced(reader, self.silence_seconds)):
                receiver.take(part, self._now())
        except TimeoutError:
            detail = f"nothing came for {self.silence_seconds:g} s"
            raise RequestFailed("timeout", detail) from None
        except EOFError:
            raise RequestFailed("broken", "the connection was closed early") from None
        except (OSError, ValueError, asyncio.LimitOverrunError) as error:
            raise RequestFailed("broken", str(error) or type(error).__name__) from error
        return receiver.end(self._now())

    def _encoded(self, host: str, path: str, body: bytes) -> bytes:
        shown = f"Authorization: Bearer {self.key.reveal()}\r\n" if self.key is not None else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{shown}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _now(self) -> float:
        return self.clock.now().boottime


class _Silenced:
    """A reader whose every wait has a limit. Raises TimeoutError."""

    def __init__(self, reader: asyncio.StreamReader, seconds: float) -> None:
        self._reader = reader
        self._seconds = seconds

    async def line(self) -> bytes:
        async with asyncio.timeout(self._seconds):
            line = await self._reader.readuntil(b"\n")
        return line.strip()

    async def some(self, limit: int) -> bytes:
        """What has come, at most so much; empty at the end."""
        async with asyncio.timeout(self._seconds):
            return await self._reader.read(limit)


async def _body(reader: _Silenced) -> AsyncIterator[bytes]:
    """The parts of a body. Raises RequestFailed for another status than 200, OSError, EOFError."""
    status = (await reader.line()).split(maxsplit=2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise RequestFailed("invalid", "it does not speak HTTP")
    headers = await _headers(reader)
    parts = _parts(reader, headers)
    if status[1] != b"200":
        said = bytearray()
        async for part in parts:
            said += part
            if len(said) > _ERROR_BYTES:
                break
        raise RequestFailed(f"HTTP {status[1].decode()}", said.decode(errors="replace"))
    async for part in parts:
        yield part


async def _headers(reader: _Silenced) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    while line := await reader.line():
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip().lower()
        if len(headers) > 100:
            raise RequestFailed("invalid", "more than 100 headers")
    return headers


async def _parts(reader: _Silenced, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        while left := int((await reader.line()).partition(b";")[0], 16):
            async for part in _exactly(reader, left):
                yield part
            await reader.line()
    elif b"content-length" in headers:
        async for part in _exactly(reader, int(headers[b"content-length"])):
            yield part
    else:
        while part := await reader.some(_PART_BYTES):
            yield part


async def _exactly(reader: _Silenced, count: int) -> AsyncIterator[bytes]:
    if count < 0:
        raise ValueError("a length below 0")
    while count:
        part = await reader.some(min(count, _PART_BYTES))
        if not part:
            raise EOFError
        count -= len(part)
        yield part
