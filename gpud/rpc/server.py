"""The gRPC server: its listeners, its limits, and the guard around every method."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as reflection_messages
from grpc_status import rpc_status

from gpud.errors import ConfigInvalid, GpudError, OptionInvalid
from gpud.rpc.errors import internal_status, status_of

log = structlog.get_logger()

OPTIONS = [
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.server_handshake_timeout_ms", 5_000),
]
STOP_GRACE_SECONDS = 1.0
MAX_CALLS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One service: its full name, who answers, and the generated function that adds it."""

    name: str
    servicer: object
    add: Callable[[Any, Any], None]


def guarded(servicer: object) -> object:
    """The servicer, each of its methods turning errors into rich statuses and bugs into ids.

    Done once per method: a wrapper costs less per call than an interceptor.
    """
    for name in dir(servicer):
        if name[0].isupper():
            method: Any = getattr(servicer, name)
            stream = inspect.isasyncgenfunction(method)
            setattr(servicer, name, _guarded_stream(method) if stream else _guarded_unary(method))
    return servicer


def _guarded_unary(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(request, context)
        except GpudError as error:
            await context.abort_with_status(_wire(_refused(method, error)))
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 — the last net: a client never sees a traceback
            await context.abort_with_status(_wire(internal_status(_logged(method))))

    return call


def _guarded_stream(
    method: Callable[..., AsyncIterator[Any]],
) -> Callable[..., AsyncIterator[Any]]:
    async def call(
        request: object, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for answer in method(request, context):
                yield answer
        except GpudError as error:
            await context.abort_with_status(_wire(_refused(method, error)))
        except DecodeError as error:
            # A later message of a stream; the one of a unary call is read before we are called.
            wrong = OptionInvalid(field="message", problem=f"not protobuf ({error})")
            await context.abort_with_status(_wire(_refused(method, wrong)))
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 — as above
            await context.abort_with_status(_wire(internal_status(_logged(method))))

    return call


def _wire(status: status_pb2.Status) -> grpc.Status:
    return rpc_status.to_status(status)


def _refused(method: object, error: GpudError) -> status_pb2.Status:
    """A refusal is a decision too: the log says why, with the numbers."""
    name = getattr(method, "__qualname__", "?")
    log.info("rpc.refused", method=name, reason=error.reason, message=str(error))
    return status_of(error)


def _logged(method: object) -> str:
    """Log the exception being handled; its id is all that the client gets."""
    error_id = secrets.token_hex(6)
    name = getattr(method, "__qualname__", "?")
    log.error("rpc.bug", method=name, error_id=error_id, exc_info=True)  # noqa: LOG014
    return error_id


class _Generic:
    """Registers a service's methods by name alone.

    For each method that is registered one by one, grpc.aio (1.85) makes a waiting task and looks
    at all of them at every call: with thirty methods a tenth of a call's time.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's own."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Nothing: the generic handlers have the same methods."""


class RpcServer:
    """All services on a Unix socket, and on a loopback address where asked."""

    def __init__(self, registrations: Sequence[Registration]) -> None:
        # Streams count: a thousand watchers and as many calls, then refusals instead of memory.
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        self._health = health.aio.HealthServicer()
        self._names = [each.name for each in registrations]
        for each in registrations:
            each.add(guarded(each.servicer), _Generic(self._server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._add_reflection()
        self._socket: Path | None = None

    def bind(self, socket_path: Path, listen: str) -> None:
        """Take the addresses; callers wait until start. Raises ConfigInvalid when one is taken."""
        if listen:
            check_free(listen)
        prepare_socket(socket_path)
        # The right to call is the right to open the socket: it is born with its final mode.
        old = os.umask(0o117)
        try:
            self._bind(f"unix:{socket_path}", "server.socket")
        finally:
            os.umask(old)
        self._socket = socket_path
        if listen:
            self._bind(listen, "server.listen")

    async def start(self) -> None:
        """Answer; as serving only once `set_serving` says so."""
        # Of its own the servicer calls a server that has just started SERVING.
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers, for the server and for each service."""
        answers = health_pb2.HealthCheckResponse
        status = answers.SERVING if serving else answers.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Answer what is under way, then close and remove the socket."""
        await self._server.stop(STOP_GRACE_SECONDS)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def _bind(self, address: str, key: str) -> None:
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigInvalid(
                f"cannot listen on {address}: it is taken or may not be bound; set another {key}"
            )

    def _add_reflection(self) -> None:
        """v1alpha, which grpcio offers, and v1, which clients ask first: the same messages."""
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
            servicer, self._server
        )
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_messages.ServerReflectionRequest.FromString,
            response_serializer=reflection_messages.ServerReflectionResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
        )
        self._server.add_generic_rpc_handlers((service,))


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
    _is_dead(socket_path)
    for listen in filter(None, listens):
        check_free(listen)


def prepare_socket(path: Path) -> None:
    """Make the folder; remove a dead socket. Raises ConfigInvalid for a live one or another file.

    gRPC would take over a live server's path without a word.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot make {path.parent} for the socket: {(error.strerror or '').lower()}; "
            "set server.socket"
        ) from error
    if _is_dead(path):
        path.unlink()


def _is_dead(path: Path) -> bool:
    """Whether a server once listened there. Raises ConfigInvalid where one does, or a file is."""
    if not path.exists() and not path.is_symlink():
        return False
    if not path.is_socket():
        raise ConfigInvalid(
            f"cannot listen on {path}: no socket, but a file is there; set server.socket"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # a server with no time for us is a server
    raise ConfigInvalid(
        f"cannot listen on {path}: another server answers there; set server.socket"
    )
