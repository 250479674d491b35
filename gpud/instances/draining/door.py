"""A door before an engine that takes nobody new: who comes is told so; who is inside stays.

The port is the engine's own, and to end its listening socket from outside ends a llama-server's
requests in flight with it ("listener stopped unexpectedly"). So gpud listens beside it, which
SO_REUSEPORT allows to sockets of one user that have it all, and has the kernel give each new
connection to the one at the door (socket(7), SO_ATTACH_REUSEPORT_CBPF). Connections that are
there already stay the engine's: who keeps one open may go on asking over it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from gpud.engines.probe import DOOR_HEADER, DOOR_SOURCE

LOOPBACK: Final = "127.0.0.1"
SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h; the module socket has no name for it
BACKLOG: Final = 64
# For the request of somebody who is turned away: it is read, so that the answer is not lost.
READ_SECONDS: Final = 1.0
MAX_REQUEST_BYTES: Final = 64 * 1024
RETRY_AFTER_SECONDS: Final = 1

# Classic BPF (linux/filter.h): words of a packet's network header lie from SKF_NET_OFF on.
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SKF_NET_OFF: Final = -0x100000
_IPV4_SOURCE: Final = 12
_LISTENING: Final = "0A"


class CannotShut(OSError):
    """New requests cannot be turned away; the text says why."""


class Door:
    """Of one port on the loopback address. `says` is what those who come are told."""

    def __init__(self, port: int, says: str) -> None:
        self._port = port
        self._answer = _answer(says)
        self._server: asyncio.Server | None = None

    async def shut(self) -> None:
        """From when this returns, no new connection is the engine's. Raises CannotShut."""
        listeners, strangers = await asyncio.to_thread(_listeners, self._port)
        if strangers:
            raise CannotShut(f"it does not listen on {LOOPBACK} alone")
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind((LOOPBACK, self._port))
            listening.listen(BACKLOG)
            _lead_here(listening, listeners)
            self._server = await asyncio.start_server(self._turn_away, sock=listening)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise CannotShut("it does not share its port" if listeners else words) from error
        finally:
            if self._server is None:
                listening.close()

    def open(self) -> None:
        """Let everybody to the engine again; nothing where it was not shut."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(min(_length(head), MAX_REQUEST_BYTES))
        with suppress(OSError, TimeoutError, asyncio.LimitOverrunError):
            writer.write(self._answer)
            async with asyncio.timeout(READ_SECONDS):
                await writer.drain()
        writer.close()


def _answer(says: str) -> bytes:
    """A whole HTTP answer, its error in the form of OpenAI's API."""
    error = {"message": says, "type": "unavailable_error", "code": 503}
    body = json.dumps({"error": error}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Retry-After: {RETRY_AFTER_SECONDS}\r\n{DOOR_HEADER}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _length(head: bytes) -> int:
    """How much follows the head of a request; 0 where it does not say it."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return 0


def _listeners(port: int) -> tuple[int, int]:
    """How many sockets listen on a port of the loopback address, and of any other.

    The first are the engine's, before ours is one of them; a more general one would get nothing
    at all beside ours.
    """
    own, others = f"{int.from_bytes(socket.inet_aton(LOOPBACK), sys.byteorder):08X}", 0
    count = 0
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(file).read_text().splitlines()[1:]:
                words = line.split()
                address, _, number = words[1].partition(":")
                if number == f"{port:04X}" and words[3] == _LISTENING:
                    count += address == own
                    others += address != own
    return count, others


def _lead_here(listening: socket.socket, others: int) -> None:
    """Give this socket, the last that listens there, all new connections but gpud's own.

    Raises OSError.
    """
    source = struct.unpack("!I", socket.inet_aton(DOOR_SOURCE))[0]
    program = (
        (_LOAD_WORD, 0, 0, _SKF_NET_OFF + _IPV4_SOURCE),
        (_JUMP_IF_EQUAL, 0, 1, source),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, others),
    )
    code = b"".join(struct.pack("HBBI", op, yes, no, k & 0xFFFFFFFF) for op, yes, no, k in program)
    held = ctypes.create_string_buffer(code)
    told = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(held))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, told)
