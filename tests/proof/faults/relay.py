"""A client's connection that the test can cut, as the client's death would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Relay:
    """Hands bytes on between clients at `path` and the daemon at `target`, until it is cut."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self._writers: list[asyncio.StreamWriter] = []
        self._is_cut = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Relay]:
        """While it listens."""
        server = await asyncio.start_unix_server(self._serve, self.path)
        try:
            yield self
        finally:
            server.close()
            self.cut()

    @property
    def connections(self) -> int:
        """How many are handed on now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Both ends find their connection gone, and nobody says goodbye."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            onward, back = await asyncio.open_unix_connection(self._target)
        except OSError:  # the daemon is not there
            writer.transport.abort()
            return
        self._writers += [writer, back]
        await asyncio.gather(_pump(reader, back), _pump(onward, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
