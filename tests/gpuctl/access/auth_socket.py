"""A stand-in for gpud's auth socket: mints numbered tokens, or says what a test wants."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path


class AuthSocket:
    """`minted` counts. `line`: said instead of a token; None: nothing, and the line stays open."""

    def __init__(self, path: Path, *, seconds: float = 300.0) -> None:
        self.path = path
        self.minted = 0
        self.seconds = seconds
        self.line: bytes | None = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> AuthSocket:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        for each in self._open:
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.minted += 1
            if self.line is None:
                self._open.append(client)
                continue
            with client:
                client.sendall(self.line or self._token())

    def _token(self) -> bytes:
        told = {
            "token": f"gpudu1.t{self.minted}", "name": "ada@rig",
            "expires_in_seconds": self.seconds,
        }  # fmt: skip
        return json.dumps(told).encode() + b"\n"
