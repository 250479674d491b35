"""A real HTTP server that is told alerts, and does with them what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_SECONDS = 60.0


class Receiver:
    """Answers with the statuses in `answers`, one for each request, then 200; `got` keeps all."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.hangs = False
        self.url = ""
        self._came = threading.Condition()
        self._ends = threading.Event()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self._came:
            self.got.append((path, headers, json.loads(body)))
            self._came.notify_all()
            status = self.answers.pop(0) if self.answers else 200
        if self.hangs:
            self._ends.wait(PATIENCE_SECONDS)
        return status

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The bodies, once so many came."""
        with self._came:
            came = self._came.wait_for(lambda: len(self.got) >= count, PATIENCE_SECONDS)
            assert came, f"{len(self.got)} of {count} came"
            return [body for _, _, body in self.got]

    def end(self) -> None:
        self._ends.set()


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """One that listens on this host."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # one write: who asked leaves after the head

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.take(self.path, headers, self.rfile.read(length))
            self.send_response(status, f"Cannot POST {self.path}")
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()
            # As servers do: what they were sent.
            self.wfile.write(f"Cannot POST {self.path}\n\x1b[31m{self.headers}".encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.end()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_SECONDS)
