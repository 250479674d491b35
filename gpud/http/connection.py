"""One HTTP connection on the event loop, bounded in what it may take and how long.

A head comes whole within seconds, however it drips; a page is taken within seconds; between two
requests a connection may rest, as Prometheus' does between two scrapes. While nobody is connected
nothing runs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import structlog

from gpud.http.request import MAX_HEAD_BYTES, Answer, Request, head_end, parse, response, text

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of each connection, in seconds, and of all. `rest`: Prometheus may scrape every minute."""

    head: float = 5.0
    rest: float = 150.0
    write: float = 10.0
    connections: int = 64


class Room:
    """Who is connected, the longest idle first: that one makes room for another."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._connections: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> None:
        """A connection came."""
        self._connections[connection] = None
        if len(self._connections) > self.limits.connections:
            next(iter(self._connections)).abort()

    def served(self, connection: Connection) -> None:
        """It was answered: it is now the last to make room."""
        if self._connections.pop(connection, self) is None:
            self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.pop(connection, None)

    def close(self) -> None:
        """End all."""
        for each in list(self._connections):
            each.abort()

    def __len__(self) -> int:
        return len(self._connections)


class Connection(asyncio.Protocol):
    """Answers one request after the other by `answer`, which must not block."""

    def __init__(self, answer: Callable[[Request], Answer], room: Room) -> None:
        self._answer = answer
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._searched = 0  # bytes of it in which no head ends
        self._is_full = self._is_closing = False
        self._is_due = False  # the next request will be looked for in the next turn
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connected: a head is due."""
        # uvloop's is none by its class.
        self._transport = cast("asyncio.Transport", transport)
        self._limit(self._room.limits.head)
        self._room.enter(self)

    def data_received(self, data: bytes) -> None:
        """A part of a head, or several heads; who sends many at once is broken off."""
        if self._is_closing:
            return
        if not self._received and not self._is_full:
            self._limit(self._room.limits.head)
        self._received += data
        if len(self._received) > MAX_HEAD_BYTES:
            told = f"cannot read more than {MAX_HEAD_BYTES} bytes of headers; send fewer"
            self._refuse(text(told, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        elif not self._is_due:
            self._advance()

    def eof_received(self) -> None:
        """Nothing comes any more; what was answered is sent, then the connection ends."""
        self._is_closing = True

    def pause_writing(self) -> None:
        """The other side takes no more for now: neither do we."""
        self._is_full = True
        self._limit(self._room.limits.write)
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It took what there was."""
        self._is_full = False
        if self._transport is not None and not self._is_closing:
            self._transport.resume_reading()
            self._limit(self._room.limits.head if self._received else self._room.limits.rest)
            if not self._is_due:
                self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._room.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """End it, whatever is under way."""
        self._is_closing = True
        self._room.leave(self)
        if self._transport is not None:
            self._transport.abort()

    # What is done about it.

    def _advance(self) -> None:
        """Answer the next request that came whole; one in each turn of the loop."""
        self._is_due = False
        if self._is_closing or self._is_full:
            return
        end = head_end(self._received, self._searched)
        if end is None:
            self._searched = len(self._received)
            return
        head = bytes(self._received[:end])
        del self._received[:end]
        self._searched = 0
        request = parse(head)
        if isinstance(request, Answer):
            self._refuse(request)
            return
        self._serve(request)
        if self._received and not self._is_closing:
            self._is_due = True
            self._loop.call_soon(self._advance)

    def _serve(self, request: Request) -> None:
        limits = self._room.limits
        self._limit(limits.head if self._received else limits.rest)
        answer = self._answered(request)
        self._send(response(answer, is_head=request.is_head, keeps_alive=request.keeps_alive))
        self._room.served(self)
        if not request.keeps_alive:
            self._close()

    def _answered(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except Exception:
            # As in rpc/gate.py: who asks gets an id, and the loop goes on.
            error_id = secrets.token_hex(6)
            log.exception("http.bug", path=request.path[:200], error_id=error_id)
            told = f"cannot answer: a bug; the log has it as {error_id}"
            return text(told, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse(self, answer: Answer) -> None:
        self._send(response(answer, is_head=False, keeps_alive=False))
        self._close()

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        """Once it has what was sent; it may take that long, and no longer."""
        self._is_closing = True
        self._received.clear()
        self._limit(self._room.limits.write)
        if self._transport is not None:
            self._transport.close()

    def _limit(self, seconds: float) -> None:
        """Abort after this, unless something else happens first."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.abort)
