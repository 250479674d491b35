"""The gRPC servers: one for each listener, for where a call came in is what tells who calls."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as reflection_messages

from gpud.access.access import Access
from gpud.access.doors import Door
from gpud.errors import ConfigInvalid
from gpud.rpc.gate import Gate

# A connection ends after two pings too many in 10 s, after 5 s in its handshake, and where a ping
# after a silent minute is not answered in 20 s. Of headers 8 KiB are taken, 16 KiB read.
# Of one connection's streams those beyond 1024 are refused before anybody looks at them, also the
# ones that were reset at once: else a single connection's resets fill the queue of all. That queue
# holds eight such connections; what is beyond gRPC cancels, whoever called.
MAX_STREAMS_PER_CONNECTION = 1024
# Of requests: the largest that anybody has a use for is some 20 KiB.
MAX_MESSAGE_BYTES = 256 * 1024
MAX_PENDING = 8 * MAX_STREAMS_PER_CONNECTION
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Without this one the answer to a keepalive is waited for a minute, whatever is said below.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
]
# So many of one listener, before and after the handshake; more are closed as they are accepted.
# How often an address connects gRPC does not bound: that is for a firewall, as with nftables'
# `limit rate`; on the host itself for the modes of the sockets.
MAX_CONNECTIONS = 1024
CONNECTION_GRACE_MS = 10_000
STOP_GRACE_SECONDS = 1.0
# The gate counts streams and calls apart, and says so; this is the wall behind it.
MAX_CALLS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One service: its full name, who answers, and the generated function that adds it."""

    name: str
    servicer: object
    add: Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPlace:
    """A Unix socket, who may open it, and the key that names it in the configuration."""

    door: Door
    path: Path
    key: str
    mode: int
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPlace:
    """A TCP address, in the clear without `credentials`; a connection lives so long at most."""

    door: Door
    address: str
    credentials: grpc.ServerCredentials | None = None
    max_age_seconds: float = 0.0


Place = SocketPlace | PortPlace


class _Guarded(grpc.GenericRpcHandler):
    """What the generated functions register with: all methods behind the gate, in one table.

    For each method that is registered one by one, grpc.aio (1.85) makes a waiting task and looks
    at all of them at every call: with thirty methods a tenth of a call's time. And each table more
    is asked at every call for a method that it does not have.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._methods: dict[str, Any] = {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """A method's handler; of one that there is not, the refusal."""
        method = details.method
        return self._methods.get(method) or self._gate.unknown(method.removeprefix("/"))

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the same methods come by their names as well."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """The methods of a service."""
        for name, each in handlers.items():
            full = f"{service}/{name}"
            self._methods[f"/{full}"] = self._gate.handler(full, each)


class RpcServer:
    """All services at every place, a server for each."""

    def __init__(self, registrations: Sequence[Registration], access: Access) -> None:
        self._access = access
        self._registrations = registrations
        self._health = health.aio.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._sockets: list[Path] = []
        self._connections = MAX_CONNECTIONS

    def bind(self, places: Sequence[Place]) -> None:
        """Take the addresses; callers wait until start. Raises ConfigInvalid when one is taken."""
        for place in places:
            if isinstance(place, SocketPlace):
                prepare_socket(place.path, place.key)
            else:
                check_free(place.address)
        self._connections = connections_of_each(len(places), _descriptors())
        for place in places:
            server = self._server(place)
            if isinstance(place, SocketPlace):
                _bind_socket(server, place)
                self._sockets.append(place.path)
            else:
                _bind(server, place.address, "server.listen", place.credentials)
            self._servers.append(server)

    async def start(self) -> None:
        """Answer; as serving only once `set_serving` says so."""
        # Of its own the servicer calls a server that has just started SERVING.
        await self.set_serving(False)
        for server in self._servers:
            await server.start()

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers, for the server and for each service."""
        answers = health_pb2.HealthCheckResponse
        status = answers.SERVING if serving else answers.NOT_SERVING
        for name in ("", *(each.name for each in self._registrations)):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Answer what is under way, then close and remove the sockets."""
        async with asyncio.TaskGroup() as tasks:
            for server in self._servers:
                tasks.create_task(server.stop(STOP_GRACE_SECONDS))
        for path in self._sockets:
            path.unlink(missing_ok=True)

    def _server(self, place: Place) -> grpc.aio.Server:
        options = [*OPTIONS, ("grpc.max_allowed_incoming_connections", self._connections)]
        if isinstance(place, PortPlace) and place.max_age_seconds:
            options += [
                ("grpc.max_connection_age_ms", int(1000 * place.max_age_seconds)),
                ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
            ]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALLS)
        guarded = _Guarded(Gate(place.door, self._access))
        for each in self._registrations:
            each.add(each.servicer, guarded)
        add_health: Callable[[Any, Any], None] = health_pb2_grpc.add_HealthServicer_to_server
        add_health(self._health, guarded)
        self._add_reflection(guarded)
        server.add_generic_rpc_handlers((guarded,))
        return server

    def _add_reflection(self, guarded: _Guarded) -> None:
        """v1alpha, which grpcio offers, and v1, which clients ask first: the same messages."""
        names = [each.name for each in self._registrations]
        servicer = reflection.aio.ReflectionServicer(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        )
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_messages.ServerReflectionRequest.FromString,
            response_serializer=reflection_messages.ServerReflectionResponse.SerializeToString,
        )
        for version in ("v1alpha", "v1"):
            service = f"grpc.reflection.{version}.ServerReflection"
            guarded.add_registered_method_handlers(service, {"ServerReflectionInfo": handler})


def connections_of_each(listeners: int, descriptors: int) -> int:
    """How many connections a listener takes: all of them leave half of the files to the daemon.

    `descriptors` is how many files this process may have open.
    """
    return max(1, min(MAX_CONNECTIONS, descriptors // (2 * max(1, listeners))))


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def _bind_socket(server: grpc.aio.Server, place: SocketPlace) -> None:
    """The right to call is the right to open the socket: it is never wider than its final mode."""
    old = os.umask(0o177)
    try:
        _bind(server, f"unix:{place.path}", place.key, None)
    finally:
        os.umask(old)
    try:
        if place.group:
            os.chown(place.path, -1, grp.getgrnam(place.group).gr_gid)
        place.path.chmod(place.mode)
    except KeyError as error:
        raise ConfigInvalid(
            f"cannot give {place.path} to the group {place.group!r}: there is no such group; "
            f"set the group of {place.key}"
        ) from error
    except OSError as error:
        raise ConfigInvalid(
            f"cannot give {place.path} to the group {place.group!r}: "
            f"{(error.strerror or str(error)).lower()}; gpud's user has to be in it"
        ) from error


def _bind(
    server: grpc.aio.Server, address: str, key: str, credentials: grpc.ServerCredentials | None
) -> None:
    try:
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        port = 0
    if port == 0:
        raise ConfigInvalid(
            f"cannot listen on {address}: it is taken or may not be bound; set another {key}"
        )


def check_free(listen: str) -> None:
    """Raise ConfigInvalid for an address that is taken; gRPC would log that in its own words."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        raise ConfigInvalid(
            f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}; "
            "set another server.listen"
        ) from error


def check_addresses(socket_path: Path, listens: Sequence[str]) -> None:
    """Raise ConfigInvalid for an address that is taken; changes nothing."""
    _is_dead(socket_path, "server.socket")
    for listen in filter(None, listens):
        check_free(listen)


def prepare_socket(path: Path, key: str = "server.socket") -> None:
    """Make the folder; remove a dead socket. Raises ConfigInvalid for a live one or another file.

    gRPC would take over a live server's path without a word.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot make {path.parent} for the socket: {(error.strerror or '').lower()}; "
            f"set {key}"
        ) from error
    if _is_dead(path, key):
        path.unlink()


def _is_dead(path: Path, key: str) -> bool:
    """Whether a server once listened there. Raises ConfigInvalid where one does, or a file is."""
    if not path.exists() and not path.is_symlink():
        return False
    if not path.is_socket():
        raise ConfigInvalid(f"cannot listen on {path}: no socket, but a file is there; set {key}")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # a server with no time for us is a server
    raise ConfigInvalid(f"cannot listen on {path}: another server answers there; set {key}")
