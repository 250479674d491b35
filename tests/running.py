"""`gpud run` as a process of its own, and its API as tests call it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gpud.v1 import (
    devices_pb2_grpc,
    instances_pb2_grpc,
    models_pb2_grpc,
    node_pb2_grpc,
    reservations_pb2_grpc,
    telemetry_pb2_grpc,
)

GIB = 1024**3
# Only to end a hang: a host may be slow, and busy.
START_SECONDS = 60.0
STOP_SECONDS = 60.0
RECONNECT_MILLISECONDS = 100


@dataclass(kw_only=True)
class Gpud:
    """A daemon on a state directory and a socket of its own; may live, die and live again."""

    directory: Path
    cards: int = 4
    interval: str = "50ms"
    # More TOML: keys of [server] and of [devices], and whole sections.
    server: str = ""
    devices: str = ""
    extra: str = ""
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    # What is started instead, with the daemon's own command as its last arguments.
    under: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.directory / "gpud.sock"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def config(self) -> Path:
        return self.directory / "gpud.toml"

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.is_file() else ""

    def write_config(self) -> None:
        cards = f'[[devices.simulated]]\ncard = "p106-100"\ncount = {self.cards}\n'
        self.config.write_text(
            f'[node]\nstate_dir = "{self.state}"\n'
            f'[server]\nsocket = "{self.socket}"\n{self.server}'
            f'[sampling]\ninterval = "{self.interval}"\nprocesses_every = 2\n'
            '[policy]\nreserve_system_memory = "64MiB"\n'
            f'[devices]\nnvml = "off"\n{self.devices}\n{cards if self.cards else ""}{self.extra}'
        )

    def start(self) -> Gpud:
        """Start it and wait until it says that it is READY, as it would to systemd."""
        with self.started() as notices:
            self._await_ready(notices)
        return self

    @contextlib.contextmanager
    def started(self) -> Iterator[socket.socket]:
        """Start it; the socket is where it tells how it stands."""
        self.write_config()
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(path))
            environment = {**os.environ, "NOTIFY_SOCKET": str(path), **self.environment}
            with (self.directory / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    [
                        *self.under,
                        sys.executable,
                        "-m",
                        "gpud",
                        "run",
                        "--config",
                        str(self.config),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            yield notices

    def _await_ready(self, notices: socket.socket) -> None:
        assert self.process is not None
        death = os.pidfd_open(self.process.pid)
        until = time.monotonic() + START_SECONDS
        try:
            while True:
                limit = max(0.0, until - time.monotonic())
                readable, _, _ = select.select([notices, death], [], [], limit)
                if notices not in readable:
                    pytest.fail(f"gpud did not become READY:\n{self.log}")
                if "READY=1" in notices.recv(4096).decode().splitlines():
                    return
        finally:
            os.close(death)

    def kill(self) -> None:
        """SIGKILL, as a crash or an impatient person would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; its exit code. What it ran goes on running."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def restart(self) -> Gpud:
        """SIGKILL and a new life on the same state."""
        self.kill()
        return self.start()

    def end(self) -> None:
        """At the end of a test: the daemon, and whatever of it still runs, by pid."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_SECONDS)
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leftovers(self) -> list[int]:
        """Processes, the daemon apart, whose arguments name our folder."""
        needle = str(self.directory).encode()
        own = {os.getpid(), self.process.pid if self.process else 0}
        return [pid for pid in pids() if pid not in own and needle in arguments(pid)]


def ghostly(directory: Path) -> Gpud:
    """The host, four simulated cards, and three models none of whose files is there."""
    names = ("ghost", "phantom", "spectre")
    entries = "".join(f'[models.{name}]\npath = "{name}.gguf"\n' for name in names)
    return Gpud(directory=directory, extra=f'[models]\nroots = ["{directory}"]\n{entries}')


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Api:
    """All services of one daemon."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.node = node_pb2_grpc.NodeServiceStub(channel)
        self.devices = devices_pb2_grpc.DeviceServiceStub(channel)
        self.telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        self.reservations = reservations_pb2_grpc.ReservationServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.instances = instances_pb2_grpc.InstanceServiceStub(channel)


@contextlib.asynccontextmanager
async def calling(gpud: Gpud) -> Any:
    """An Api over a channel of its own."""
    # Of its own to the last: a channel to a daemon that was killed would share its waiting time
    # before the next attempt with this one.
    # And while that is not there yet, it is tried again soon, not after seconds.
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
    ]
    async with grpc.aio.insecure_channel(gpud.address, options=options) as channel:
        yield Api(channel)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A rich error as a client reads it."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    fields: tuple[str, ...]


async def refused(call: Awaitable[Any]) -> Refusal:
    """The refusal that a unary call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def refused_stream(stream: Any) -> Refusal:
    """The refusal that a stream ends with, whatever came before."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stream:
            pass
    return refusal_of(caught.value)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return Refusal(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        metadata=dict(info.metadata),
        fields=tuple(violation.field for violation in bad.field_violations),
    )
