"""A daemon that says what a test scripted, over a real gRPC server on a Unix socket."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
    telemetry_pb2,
)

_FILES: tuple[ModuleType, ...] = (
    devices_pb2, instances_pb2, models_pb2, node_pb2, reservations_pb2, telemetry_pb2,
)  # fmt: skip


@dataclass(kw_only=True)
class Refusal(Exception):
    """A rich error, as gpud answers it; without a reason a bare gRPC one."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)

    def abort(self, context: grpc.ServicerContext) -> None:
        """End the call with it."""
        if not self.reason:
            context.abort(self.code, self.message)
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(
            reason=self.reason, domain="gpud", metadata=self.metadata
        )
        _pack(status, info)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for name, why in self.violations.items():
                bad.field_violations.add(field=name, description=why)
            _pack(status, bad)
        context.abort_with_status(rpc_status.to_status(status))


def _pack(status: Any, detail: Message) -> None:
    packed = Packed()
    packed.Pack(detail)
    status.details.append(packed)


class FakeDaemon:
    """Answers each method as scripted: a message, a list of messages, a Refusal, or a function
    of the request that gives one of these. A method that was not scripted is UNIMPLEMENTED.

    A stream of requests is answered request by request. `requests` has what was asked, by method;
    `ended` is set by method once a call is over, however it ended. A list with `HANG` stays open
    there until the client leaves; `hanging` tells when. A callable among the steps is called in
    its turn, as to wait for something. `stop` breaks every connection.

    Without a socket it listens on a port of this host, in the clear or with `credentials`.
    `authorization` has by method what each call brought as such, None for nothing.
    """

    HANG = object()

    def __init__(
        self, socket: Path | None, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.address = "127.0.0.1:0" if socket is None else f"unix://{socket}"
        self._credentials = credentials
        self.authorization: defaultdict[str, list[str | None]] = defaultdict(list)
        self.answers: dict[str, Any] = {}
        self.requests: defaultdict[str, list[Any]] = defaultdict(list)
        self.hanging = threading.Event()
        self.ended: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._asked = threading.Condition()
        self._server = self._made()

    def __enter__(self) -> FakeDaemon:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every call, and listen no more."""
        self._server.stop(grace=None).wait(60)

    def start_again(self) -> None:
        """Listen where it did before."""
        self._server = self._made()
        self._server.start()

    def asked(self, name: str, count: int = 1, limit_seconds: float = 60) -> list[Any]:
        """What a method was asked, once that were so many; fails after the limit."""
        with self._asked:
            came = self._asked.wait_for(lambda: len(self.requests[name]) >= count, limit_seconds)
            assert came, f"{name} was asked {len(self.requests[name])} of {count} times"
            return list(self.requests[name])

    def _made(self) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(8))
        for file in _FILES:
            for service in file.DESCRIPTOR.services_by_name.values():
                server.add_generic_rpc_handlers((self._handlers(service),))
        if self._credentials is None:
            port = server.add_insecure_port(self.address)
        else:
            port = server.add_secure_port(self.address, self._credentials)
        if not self.address.startswith("unix://"):
            self.address = f"127.0.0.1:{port}"
        return server

    def _handlers(self, service: Any) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service.full_name, {method.name: self._handler(method) for method in service.methods}
        )

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        def unary(request: Message, context: grpc.ServicerContext) -> Message:
            (answer,) = self._answer(method.name, request, context)
            return answer

        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            yield from self._answer(method.name, request, context)

        def both(requests: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
            for request in requests:
                yield from self._answer(method.name, request, context)

        coding = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": GetMessageClass(method.output_type).SerializeToString,
        }
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(both, **coding)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **coding)
        return grpc.unary_unary_rpc_method_handler(unary, **coding)

    def _answer(
        self, name: str, request: Message, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        brought = {each.key: each.value for each in context.invocation_metadata()}
        with self._asked:
            self.authorization[name].append(brought.get("authorization"))
            self.requests[name].append(request)
            self._asked.notify_all()
        ended = threading.Event()
        context.add_callback(ended.set)
        context.add_callback(lambda: self.ended[name].set())
        script = self.answers.get(name)
        if callable(script):
            script = script(request)
        if script is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not scripted")
        steps: Iterable[Any] = script if isinstance(script, list) else [script]
        for step in steps:
            if isinstance(step, Refusal):
                step.abort(context)
            elif step is self.HANG:
                self.hanging.set()
                ended.wait(60)
            elif callable(step):
                step()
            else:
                yield step
