"""The probe seam: small HTTP requests to engines on this host, bounded in time and size."""

from __future__ import annotations

import asyncio
import enum
import http.client
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from gpud.engines.api_key import ApiKey
from gpud.errors import GpudError

# What the door before an engine that takes nobody new says of itself, and where from gpud comes
# to be let in all the same: an address of the loopback network that nobody else has a use for.
DOOR_HEADER = "Gpud-Door: shut"
DOOR_SOURCE = "127.71.80.85"
# 4 MiB in chunks of a byte take half a second to put together: not on the loop.
PARSED_AT_ONCE_BYTES = 64 * 1024
# An embedding of 16 384 floats is some 350 KiB of text.
ANSWER_LIMIT_BYTES = 4 * 1024 * 1024


class ProbeFault(enum.Enum):
    """What kept a probe from its answer."""

    REFUSED = "refused"  # nothing listens
    TIMEOUT = "timeout"  # no whole answer in time
    BROKEN = "broken"  # closed early, not HTTP, or too large
    STATUS = "status"  # an answer, but not the one asked for


@dataclass(kw_only=True, eq=False)
class ProbeFailed(GpudError):
    """An engine did not answer as it should."""

    reason = "ENGINE_NOT_READY"

    url: str
    fault: ProbeFault
    detail: str

    def __str__(self) -> str:
        return f"cannot get an answer from {self.url}: {self.fault.value}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body, what is no UTF-8 in it replaced."""
        return self.body.decode(errors="replace")

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object that the body is; empty when it is none."""
        try:
            said = msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return {}
        return said if isinstance(said, dict) else {}

    def granted(self, url: str) -> Answer:
        """Itself, where what was asked of `url` was done (2xx). Raises ProbeFailed."""
        if not 200 <= self.status < 300:
            detail = f"{self.status} {self.text[:200]}"
            raise ProbeFailed(url=url, fault=ProbeFault.STATUS, detail=detail)
        return self


class Probe(Protocol):
    """Asks one engine one thing; each request has a connection of its own, and shows the key."""

    async def get(self, url: str, timeout_seconds: float, key: ApiKey | None = None) -> Answer:
        """The answer, whatever its status. Raises ProbeFailed."""
        ...

    async def post_json(
        self, url: str, body: Mapping[str, Any], timeout_seconds: float, key: ApiKey | None = None
    ) -> Answer:
        """The same for a JSON body. Raises ProbeFailed."""
        ...


async def asked(
    probe: Probe,
    endpoint: str,
    request: tuple[str, Mapping[str, Any]],
    limit_seconds: float,
    key: ApiKey | None,
) -> Answer:
    """What came of a request, its path and its body, that was done (2xx). Raises ProbeFailed."""
    path, body = request
    url = endpoint + path
    return (await probe.post_json(url, body, limit_seconds, key)).granted(url)


class HttpProbe:
    """HTTP/1.1 over asyncio's streams, for literal loopback addresses alone.

    No redirect is followed, no proxy used, no name resolved. One asks the loop itself rather than
    a thread, so that the time limit covers the whole exchange and a cancelled probe is gone at
    once; http.client reads the answer.
    """

    async def get(self, url: str, timeout_seconds: float, key: ApiKey | None = None) -> Answer:
        """The answer, whatever its status. Raises ProbeFailed."""
        return await self._ask(_Request("GET", url, b"", key), timeout_seconds)

    async def post_json(
        self, url: str, body: Mapping[str, Any], timeout_seconds: float, key: ApiKey | None = None
    ) -> Answer:
        """The same for a JSON body. Raises ProbeFailed."""
        request = _Request("POST", url, msgspec.json.encode(body), key)
        return await self._ask(request, timeout_seconds)

    async def _ask(self, request: _Request, timeout_seconds: float) -> Answer:
        target = _loopback(request.url)
        try:
            async with asyncio.timeout(timeout_seconds):
                raw = await _exchange(target, request.encoded(target))
                if _is_door(raw):
                    raw = await _exchange(target, request.encoded(target), DOOR_SOURCE)
                if len(raw) > PARSED_AT_ONCE_BYTES:
                    return await asyncio.to_thread(_parse, raw, request.method)
            return _parse(raw, request.method)
        except ConnectionRefusedError:
            fault, detail = ProbeFault.REFUSED, "nothing listens there"
        except TimeoutError:
            fault, detail = ProbeFault.TIMEOUT, f"no whole answer within {timeout_seconds:g} s"
        except (OSError, http.client.HTTPException) as error:
            fault, detail = ProbeFault.BROKEN, str(error) or type(error).__name__
        raise ProbeFailed(url=request.url, fault=fault, detail=detail)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    body: bytes
    key: ApiKey | None

    def encoded(self, target: SplitResult) -> bytes:
        """As it goes over the wire, its body included."""
        shown = f"Authorization: Bearer {self.key.reveal()}\r\n" if self.key is not None else ""
        query = f"?{target.query}" if target.query else ""
        head = (
            f"{self.method} {target.path or '/'}{query} HTTP/1.1\r\nHost: {target.netloc}\r\n"
            f"Connection: close\r\n{shown}"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def _loopback(url: str) -> SplitResult:
    target = urlsplit(url)
    if target.scheme != "http" or not ip_address(target.hostname or "").is_loopback:
        raise ValueError(f"{url!r} is not an http URL of a literal loopback address")
    return target


def _is_door(raw: bytes) -> bool:
    """Whether it is not the engine that answered."""
    return f"\r\n{DOOR_HEADER}\r\n".encode() in raw.partition(b"\r\n\r\n")[0] + b"\r\n"


async def _exchange(target: SplitResult, request: bytes, source: str = "") -> bytes:
    """All that the server sends until it closes. Raises OSError."""
    reader, writer = await asyncio.open_connection(
        target.hostname, target.port, local_addr=(source, 0) if source else None
    )
    try:
        writer.write(request)
        await writer.drain()
        raw = bytearray()
        while part := await reader.read(64 * 1024):
            raw += part
            if len(raw) > ANSWER_LIMIT_BYTES:
                raise OSError(f"an answer of more than {ANSWER_LIMIT_BYTES} bytes")
        return bytes(raw)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class _Received:
    """What http.client takes for a socket: the bytes are here already."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _parse(raw: bytes, method: str) -> Answer:
    """Raises HTTPException for anything but one whole answer."""
    response = http.client.HTTPResponse(cast(Any, _Received(raw)), method=method)
    try:
        response.begin()
        return Answer(status=response.status, body=response.read())
    except ValueError as error:  # a chunk size or a length that is no number
        raise http.client.HTTPException(str(error)) from error
    finally:
        response.close()
