"""Very many connections that say nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONNECT_SECONDS = 60.0


class Crowd:
    """Opened one by one, closed all at once. `address` is a port of this host, or a socket."""

    def __init__(self, address: int | Path) -> None:
        self._address = address
        self._there: list[socket.socket] = []
        self.gone = 0

    def join(self) -> None:
        """One more. It may be turned away right there."""
        path = isinstance(self._address, Path)
        new = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        new.settimeout(CONNECT_SECONDS)
        try:
            new.connect(str(self._address) if path else ("127.0.0.1", self._address))
        except ConnectionError:
            new.close()
            self.gone += 1
        else:
            new.setblocking(False)
            self._there.append(new)

    def look(self) -> int:
        """How many the server has closed so far."""
        still = []
        for each in self._there:
            if _is_closed(each):
                each.close()
                self.gone += 1
            else:
                still.append(each)
        self._there = still
        return self.gone

    def close(self) -> None:
        for each in self._there:
            each.close()
        self._there.clear()


@contextmanager
def crowd(address: int | Path) -> Iterator[Crowd]:
    made = Crowd(address)
    try:
        yield made
    finally:
        made.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True
