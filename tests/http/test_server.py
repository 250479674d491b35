"""What probes are told."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from gpud.errors import ConfigInvalid
from gpud.http.server import HttpServer


class Served:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.state = ("READY", "")
        self.server = HttpServer(f"127.0.0.1:{self.port}", lambda: self.state, lambda: "a 1")
        self.server.start()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.server.close()


def test_alive_and_ready(served: Served) -> None:
    assert served.get("/healthz") == (200, "ok\n")
    assert served.get("/readyz") == (200, "ready\n")
    assert served.get("/metrics") == (200, "a 1\n")
    assert served.get("/else")[0] == 404


def test_not_ready_says_why(served: Served) -> None:
    served.state = ("DEGRADED", "the store cannot be written")
    assert served.get("/readyz") == (503, "degraded: the store cannot be written\n")
    assert served.get("/healthz")[0] == 200


def test_a_silent_client_does_not_hold_the_others(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)):
        assert served.get("/healthz")[0] == 200


def test_a_taken_address_is_refused_with_the_fix(served: Served) -> None:
    with pytest.raises(ConfigInvalid, match=r"set another http\.listen"):
        HttpServer(f"127.0.0.1:{served.port}", lambda: ("READY", ""), str)
