"""A sink that is posted JSON: one connection for each, bounded in time and size.

No redirect is followed and no proxy is used. What the URL holds beyond its host may be a secret,
and is told nowhere.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gpud import __version__
from gpud.engines.api_key import KeyRefused, read_key
from gpud.telemetry.alerts.sinks.sink import SinkFailed

# Of an answer that says no, as much as is told of it.
_SAID_BYTES: Final = 200
_HEAD_LIMIT_BYTES: Final = 16 * 1024
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
                status, said = await self._post(msgspec.json.encode(body))
        except TimeoutError:
            problem = f"no answer within {self.timeout_seconds:g} s"
            raise SinkFailed(sink=self.name, problem=problem) from None
        except ssl.SSLCertVerificationError as error:
            problem = f"its certificate is not trusted: {error.verify_message}"
            raise SinkFailed(sink=self.name, problem=problem) from error
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise SinkFailed(sink=self.name, problem=self._words(error)) from error
        if not 200 <= status < 300:
            raise SinkFailed(
                sink=self.name, problem=_refusal(status, said), is_final=_is_final(status)
            )

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status, and the beginning of what was said. Raises OSError, ValueError, EOFError."""
        target = urlsplit(self.url)
        secret = await self._secret()
        context = await asyncio.to_thread(_context) if target.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            target.hostname,
            target.port or (443 if context else 80),
            ssl=context,
            limit=_HEAD_LIMIT_BYTES,
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


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readuntil(b"\n")).split(maxsplit=2)
    if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
        raise ValueError("it does not speak HTTP")
    # The headers are of no interest, but stand before what it says.
    while (await reader.readuntil(b"\n")).strip():
        pass
    status, said = int(first[1]), b""
    if status >= 300:
        with suppress(OSError):
            said = await reader.read(_SAID_BYTES)
    return status, said


def _refusal(status: int, said: bytes) -> str:
    if 300 <= status < 400:
        return f"it answers {status}, a redirect, which is not followed"
    text = "".join(c if c.isprintable() else " " for c in said.decode(errors="replace")).strip()
    return f"it answers {status}: {text}" if text else f"it answers {status}"


def _is_final(status: int) -> bool:
    """Whether the same would be answered again: it is the message, or the address."""
    return 300 <= status < 500 and status not in _PASSING


def _context() -> ssl.SSLContext:
    """Reads the system's authorities: some 20 ms."""
    return ssl.create_default_context()
