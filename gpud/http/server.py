"""/healthz, /readyz and /metrics, on the standard library's server in a thread of its own.

One request at a time, each bounded in time: probes come once a second, and a slow one must cost
the daemon nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

from gpud.errors import ConfigInvalid

REQUEST_SECONDS = 2.0


class HttpServer:
    """Serves until closed.

    `state` gives (node state, why it is not READY), `metrics` a page for Prometheus; both are
    called from another thread.
    """

    def __init__(
        self, listen: str, state: Callable[[], tuple[str, str]], metrics: Callable[[], str]
    ) -> None:
        """Bind. Raises ConfigInvalid when the address is taken."""
        host, _, port = listen.rpartition(":")

        class Handler(_Handler):
            node_state = staticmethod(state)
            page = staticmethod(metrics)

        try:
            self._server = HTTPServer((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise ConfigInvalid(
                f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}; "
                "set another http.listen"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="http", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version = "gpud"
    sys_version = ""
    node_state: ClassVar[Callable[[], tuple[str, str]]]
    page: ClassVar[Callable[[], str]]

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(HTTPStatus.OK, "ok")
        elif self.path == "/readyz":
            name, reason = type(self).node_state()
            ready = name == "READY"
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "ready" if ready else f"{name.lower()}: {reason}")
        elif self.path == "/metrics":
            self._answer(HTTPStatus.OK, type(self).page(), "text/plain; version=0.0.4")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there are /healthz, /readyz and /metrics")

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are no decisions: nothing to log."""
