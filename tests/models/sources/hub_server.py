"""A model hub of one repository, as far as huggingface_hub and a download ask one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """`large` are the names of files kept by LFS. `refusal` is what the listing is answered with.

    `changed` are files that are served otherwise than they are listed.
    """

    files: dict[str, bytes]
    repository: str = "org/tiny"
    large: tuple[str, ...] = (".gguf", ".safetensors")
    refusal: tuple[int, str] | None = None
    changed: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def sibling(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        told: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name.endswith(self.large):
            sha256 = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        return told

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        listing = f"/api/models/{self.repository}/revision/"
        if path.startswith("/api/"):
            if self.refusal is not None:
                code, kind = self.refusal
                return code, b'{"error": "no"}', {"X-Error-Code": kind} if kind else {}
            if not path.startswith(listing):
                return 404, b'{"error": "no"}', {"X-Error-Code": "RepoNotFound"}
            if path.removeprefix(listing) not in {"main", COMMIT}:
                return 404, b'{"error": "no"}', {"X-Error-Code": "RevisionNotFound"}
            told = {
                "_id": "1", "id": self.repository, "modelId": self.repository, "sha": COMMIT,
                "private": False, "disabled": False, "gated": False, "downloads": 0, "likes": 0,
                "tags": [], "siblings": [self.sibling(name) for name in self.files],
            }  # fmt: skip
            return 200, json.dumps(told).encode(), {}
        name = path.removeprefix(f"/{self.repository}/resolve/{COMMIT}/")
        content = self.changed.get(name, self.files.get(name))
        if content is None:
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        return 200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, on a port of its own."""

    class Exchange(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            hub.tokens.append(self.headers.get("Authorization", ""))
            code, body, headers = hub.answer(path)
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Exchange) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
