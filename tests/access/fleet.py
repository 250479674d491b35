"""A daemon with every way in, and callers of every role at each of them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from gpud.access.authority.folder import Wanted, issue
from gpud.access.authority.issuing import Client
from gpud.access.tokens import digest
from tests.running import Gpud, ghostly

# Who has a certificate, and the role that the configuration gives it; "" is none.
ROLES = {
    "watcher": "viewer",
    "anna": "operator",
    "bert": "operator",
    "root": "admin",
    "nobody": "",
}
TOKEN = "gpud_" + "t" * 43
STANDING = '[reservations.kept]\nowner = "house"\nbytes = "1GiB"\ndevices = ["gpu3"]\n'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def uri(name: str) -> str:
    return f"spiffe://fleet/{name}"


@dataclass
class Fleet:
    """The daemon, and how to reach it as whom."""

    gpud: Gpud
    folder: Path  # of certificates
    of_sockets: str = ""  # more keys of [sockets.*]
    port: int = field(default_factory=free_port)

    @property
    def denied(self) -> Path:
        return self.folder / "denied"

    def socket(self, role: str) -> Path:
        name = "gpud.sock" if role == "admin" else f"gpud.{role}.sock"
        return self.gpud.directory / name

    def prepare(self) -> None:
        """Certificates, the list of the denied, and the configuration."""
        clients = tuple(Client(name=name, uri=uri(name)) for name in ROLES)
        issue(self.folder, Wanted(servers=("127.0.0.1",), clients=clients), time.time())
        self.denied.write_text("")
        roles = "".join(f'"{uri(name)}" = "{role}"\n' for name, role in ROLES.items() if role)
        sockets = "".join(
            f'[sockets.{role}]\npath = "{self.socket(role)}"\nmode = "0666"\n{self.of_sockets}'
            for role in ("operator", "viewer")
        )
        self.gpud.server = f'listen = "127.0.0.1:{self.port}"\n'
        self.gpud.extra += (
            f'[tls]\ncertificate = "{self.folder}/server.pem"\n'
            f'key = "{self.folder}/server-key.pem"\n'
            f'client_ca = "{self.folder}/ca.pem"\n[access]\ndenied = "{self.denied}"\n'
            f"[identities]\n{roles}{sockets}"
            f'[tokens.ci]\nsha256 = "{digest(TOKEN)}"\nrole = "operator"\n{STANDING}'
        )

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @contextlib.asynccontextmanager
    async def certified(
        self, name: str, *, ca: bytes | None = None, pair: tuple[bytes, bytes] | None = None
    ) -> AsyncIterator[grpc.aio.Channel]:
        """Over TLS, with a certificate of the fleet, or with another pair (certificate, key)."""
        certificate, key = pair or (
            self.read(f"clients/{name}.pem"), self.read(f"clients/{name}-key.pem"),
        )  # fmt: skip
        credentials = grpc.ssl_channel_credentials(ca or self.read("ca.pem"), key, certificate)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials) as channel:
            yield channel

    @contextlib.asynccontextmanager
    async def local(self, role: str) -> AsyncIterator[grpc.aio.Channel]:
        """Over the socket of a role."""
        async with grpc.aio.insecure_channel(f"unix:{self.socket(role)}") as channel:
            yield channel

    def minted(self) -> str:
        """What the auth socket tells who we are."""
        import json

        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(str(self.gpud.directory / "gpud.auth.sock"))
            told: dict[str, Any] = json.loads(asking.makefile().readline())
        return str(told["token"])


@contextlib.contextmanager
def fleet(directory: Path, of_sockets: str = "") -> Iterator[Fleet]:
    """Started, and ended."""
    made = Fleet(gpud=ghostly(directory), folder=directory / "tls", of_sockets=of_sockets)
    made.prepare()
    try:
        made.gpud.start()
        yield made
    finally:
        made.gpud.end()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def me() -> str:
    """As SO_PEERCRED names us."""
    import pwd

    return f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"
