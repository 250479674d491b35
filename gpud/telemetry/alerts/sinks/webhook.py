"""A sink that is posted JSON: one connection for each, bounded in time and size.

No redirect is followed and no proxy is used. What the URL holds beyond its host may be a secret,
and is told nowhere. So of an answer its status alone is told: many servers repeat the path, and
some the headers, in what they say to no.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gpud import __version__
from gpud.engines.api_key import KeyRefused, read_key
from gpud.telemetry.alerts.sinks.sink import SinkFailed

# Of an answer's head: the most of one line, and of all of them.
_LINE_BYTES: Final = 16 * 1024
_MOST_LINES: Final = 100
_FIRST_LINE: Final = re.compile(rb"HTTP/1\.\d (\d{3})\b")
_PHRASES: Final = {each.value: each.phrase for each in HTTPStatus}
# It was not the message that was wrong: another try may do.
_PASSING: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where to. The key in `secret_file` is shown in `secret_header`, read anew each time."""

    name: str
    url: str
    timeout_seconds: float
    secret_file: str = ""
    secret_header: str = "Authorization"  # noqa: S105 — a header's name

    async def send(self, body: dict[str, Any]) -> None:
        """POST it; anything but 2xx is a failure. Raises SinkFailed."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                status = await self._post(msgspec.json.encode(body))
        except TimeoutError:
            problem = f"no answer within {self.timeout_seconds:g} s"
            raise SinkFailed(sink=self.name, problem=problem) from None
        except ssl.SSLCertVerificationError as error:
            problem = f"its certificate is not trusted: {error.verify_message}"
            raise SinkFailed(sink=self.name, problem=problem) from error
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise SinkFailed(sink=self.name, problem=self._words(error)) from error
        if not 200 <= status < 300:
            raise SinkFailed(sink=self.name, problem=_refusal(status), is_final=_is_final(status))

    async def _post(self, body: bytes) -> int:
        """The status of the answer. Raises OSError, ValueError, EOFError, LimitOverrunError."""
        target = urlsplit(self.url)
        secret = await self._secret()
        context = await asyncio.to_thread(_context) if target.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            target.hostname,
            target.port or (443 if context else 80),
            ssl=context,
            limit=_LINE_BYTES,
        )
        try:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            host = target.netloc.rpartition("@")[2]
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                f"User-Agent: gpud/{__version__}\r\n{secret}"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            return await _answer(reader)
        finally:
            # Not waited for: one that is cancelled is gone at once.
            writer.close()

    async def _secret(self) -> str:
        """The header with the key. Raises SinkFailed where the file holds none."""
        if not self.secret_file:
            return ""
        try:
            key = await asyncio.to_thread(read_key, self.secret_file)
        except KeyRefused as error:
            problem = f"{self.secret_file} {error}"
            raise SinkFailed(sink=self.name, problem=problem) from error
        scheme = "Bearer " if self.secret_header.lower() == "authorization" else ""
        return f"{self.secret_header}: {scheme}{key.reveal()}\r\n"

    def _words(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(error, EOFError):
            return "the connection was closed before an answer"
        text = error.strerror if isinstance(error, OSError) else None
        return (text or str(error) or type(error).__name__).lower()


async def _answer(reader: asyncio.StreamReader) -> int:
    first = _FIRST_LINE.match(await reader.readuntil(b"\n"))
    if first is None:
        raise ValueError("it does not speak HTTP")
    # The headers are of no interest, but an answer is one once they are whole.
    for _ in range(_MOST_LINES):
        if not (await reader.readuntil(b"\n")).strip():
            return int(first[1])
    raise ValueError(f"its answer has more than {_MOST_LINES} headers")


def _refusal(status: int) -> str:
    """In our own words."""
    if 300 <= status < 400:
        return f"it answers {status}, a redirect, which is not followed"
    return f"it answers {status} {_PHRASES.get(status, '')}".rstrip()


def _is_final(status: int) -> bool:
    """Whether the same would be answered again: it is the message, or the address."""
    return 300 <= status < 500 and status not in _PASSING


def _context() -> ssl.SSLContext:
    """Reads the system's authorities: some 20 ms."""
    return ssl.create_default_context()
