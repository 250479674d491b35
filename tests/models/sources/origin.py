"""A server that downloads come from: it serves one file rightly, but for what a test has it do."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_SECONDS = 60.0
MODIFIED = "Fri, 20 Nov 2026 10:00:00 GMT"

# What is done with one request instead of serving the file.
Manner = Callable[["Exchange"], None]


@dataclass
class Origin:
    """`manners` are for the next requests, one each; after them the file is served."""

    content: bytes
    etag: str = '"one"'
    url: str = ""
    manners: deque[Manner] = field(default_factory=deque)
    always: Manner | None = None
    requests: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    # For those who hold a body back: set to let it go on; and when one is held.
    go_on: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    origin: Origin

    def do_GET(self) -> None:
        self.close_connection = True
        self.origin.requests.append({k.lower(): v for k, v in self.headers.items()})
        self.origin.paths.append(self.path)
        manner = self.origin.always
        if self.origin.manners:
            manner = self.origin.manners.popleft()
        with suppress(BrokenPipeError, ConnectionResetError):
            (manner or serve)(self)

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()

    @property
    def start(self) -> int:
        """Where the range begins that is asked for; 0 for the whole."""
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0

    def log_message(self, *_: Any) -> None:
        pass


def serve(each: Exchange) -> None:
    """As a good server does: a range where it is asked for, of the same file."""
    origin, content, start = each.origin, each.origin.content, 0
    if "Range" in each.headers and each.headers.get("If-Range") in {origin.etag, MODIFIED}:
        start = each.start
    tags = {"ETag": origin.etag} if origin.etag else {}
    if start >= len(content) > 0:
        each.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        return
    if start:
        whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
        each.begin(
            206, Content_Range=whole, Content_Length=len(content) - start,
            Last_Modified=MODIFIED, **tags,
        )  # fmt: skip
    else:
        each.begin(200, Content_Length=len(content), Last_Modified=MODIFIED, **tags)
    each.wfile.write(content[start:])


def cut(at: int) -> Manner:
    """So many bytes of a whole file, and then the end of the connection."""

    def manner(each: Exchange) -> None:
        content = each.origin.content
        each.begin(200, Content_Length=len(content), ETag=each.origin.etag)
        each.wfile.write(content[:at])

    return manner


def held(at: int) -> Manner:
    """So many bytes, and the rest when the test lets it."""

    def manner(each: Exchange) -> None:
        content, start = each.origin.content, each.start
        if start:
            whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
            each.begin(206, Content_Range=whole, Content_Length=len(content) - start,
                       ETag=each.origin.etag)  # fmt: skip
        else:
            each.begin(200, Content_Length=len(content), ETag=each.origin.etag)
        each.wfile.write(content[start : start + at])
        each.wfile.flush()
        each.origin.holding.set()
        each.origin.go_on.wait(WAIT_SECONDS)
        each.wfile.write(content[start + at :])

    return manner


def status(code: int, **headers: object) -> Manner:
    def manner(each: Exchange) -> None:
        each.begin(code, Content_Length=0, **headers)

    return manner


def endless(each: Exchange) -> None:
    """A body whose length is not told, and that never ends."""
    each.begin(200, Transfer_Encoding="chunked", ETag=each.origin.etag)
    piece = b"%x\r\n" % 65536 + b"\0" * 65536 + b"\r\n"
    while True:
        each.wfile.write(piece)


def drip(each: Exchange) -> None:
    """A byte now and then, for as long as anybody listens."""
    each.begin(200, Content_Length=len(each.origin.content), ETag=each.origin.etag)
    while not each.origin.go_on.wait(0.02):
        each.wfile.write(b"\0")
        each.wfile.flush()


@contextmanager
def serving(origin: Origin, tls: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """The server, on a port of its own; with `tls` as the host `localhost`."""
    handler = type("OwnExchange", (Exchange,), {"origin": origin})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        origin.url = f"http://127.0.0.1:{server.server_address[1]}/models/tiny.gguf"
        if tls is not None:
            origin.url = origin.url.replace("http://127.0.0.1", "https://localhost")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield origin
        finally:
            origin.go_on.set()
            server.shutdown()
            thread.join()
