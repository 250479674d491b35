"""The HTTP listener: on the event loop, so that a page is made from one moment, without locks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gpud.errors import ConfigInvalid
from gpud.http.connection import Connection, Limits, Room
from gpud.http.request import Answer, Request

BACKLOG = 128


class HttpServer:
    """Serves from start until closed. `answer` is asked on the loop, and must not block."""

    def __init__(
        self, listen: str, answer: Callable[[Request], Answer], limits: Limits | None = None
    ) -> None:
        """Take the address; nobody is let in before start. Raises ConfigInvalid when it is taken.

        `listen` is HOST:PORT, an IPv6 host in brackets; port 0 is any that is free.
        """
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        self._answer = answer
        self._room = Room(limits or Limits())
        self._server: asyncio.Server | None = None
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, int(port)))
        except OSError as error:
            self._socket.close()
            raise ConfigInvalid(
                f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}; "
                "set another http.listen"
            ) from error
        self.port: int = self._socket.getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are connected."""
        return len(self._room)

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._answer, self._room), sock=self._socket, backlog=BACKLOG
        )

    def close(self) -> None:
        """Let nobody in, and end what is connected."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        self._room.close()
