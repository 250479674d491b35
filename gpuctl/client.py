"""One connection to gpud: typed stubs, a deadline on every call, failures that people can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import grpc

from gpuctl.failures import (
    SYSTEM_SOCKET,
    Failure,
    failure_of,
    usage,
)

if TYPE_CHECKING:
    from gpud.v1.devices_pb2_grpc import DeviceServiceStub
    from gpud.v1.instances_pb2_grpc import InstanceServiceStub
    from gpud.v1.models_pb2_grpc import ModelServiceStub
    from gpud.v1.node_pb2_grpc import NodeServiceStub
    from gpud.v1.reservations_pb2_grpc import ReservationServiceStub
    from gpud.v1.telemetry_pb2_grpc import TelemetryServiceStub

PAGE_SIZE = 500
# A journal or a roster longer than this is cut rather than read for ever.
_MAX_PAGES = 1000

Request = TypeVar("Request")
Answer = TypeVar("Answer")
AnswerOut = TypeVar("AnswerOut", covariant=True)

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
# Any other code was said by somebody, if only that there is no such service.
_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

_CHANNEL_OPTIONS = (
    # A proxy of the environment is meant for the web, never for the daemon next door.
    ("grpc.enable_http_proxy", 0),
    # A snapshot of many cards with their processes is the largest message; gpud bounds it.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A daemon that restarts is back within a second; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class _PageRequest(Protocol):
    page_size: int
    page_token: str


class _PageAnswer(Protocol):
    @property
    def next_page_token(self) -> str: ...


PagedRequest = TypeVar("PagedRequest", bound=_PageRequest)
PagedAnswer = TypeVar("PagedAnswer", bound=_PageAnswer)


class _Call(Protocol[AnswerOut]):
    def __iter__(self) -> Iterator[AnswerOut]: ...
    def cancel(self) -> object: ...


class Stream(Generic[Answer]):
    """The messages of a stream, read by one thread. Any other may cancel it."""

    def __init__(self, call: _Call[Answer], failure: Callable[[grpc.RpcError], Failure]) -> None:
        self._call = call
        self._failure = failure

    def __iter__(self) -> Iterator[Answer]:
        """Message by message until it ends. Raises Failure where it breaks, or is cancelled."""
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def cancel(self) -> None:
        """End it, whoever reads it."""
        self._call.cancel()


def default_address() -> str:
    """Where gpud listens unless somebody says otherwise: the system's socket, or the user's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime:
        return f"{runtime}/gpud/gpud.sock"
    return SYSTEM_SOCKET


def grpc_target(address: str) -> str:
    """`unix:///path` or `host:port` of an address as people write it, a plain path included.

    Raises Failure for anything else.
    """
    path = address.removeprefix("unix://").removeprefix("unix:")
    if path != address or address.startswith(("/", ".")):
        if not path:
            raise usage(f"{address!r} names no socket; write unix:///run/gpud/gpud.sock")
        return f"unix://{os.path.abspath(path)}"  # noqa: PTH100 (Path would cost an import here)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise usage(
            f"{address!r} is no address; write unix:///path, /path or host:port (--address)"
        )
    return address


class Client:
    """A lazily opened channel. All methods raise Failure and nothing else of the wire."""

    def __init__(self, address: str, timeout_seconds: float) -> None:
        self.address = grpc_target(address)
        self._timeout_seconds = timeout_seconds

    @cached_property
    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, options=_CHANNEL_OPTIONS)

    @cached_property
    def node(self) -> NodeServiceStub:
        """NodeService."""
        from gpud.v1.node_pb2_grpc import NodeServiceStub

        return NodeServiceStub(self._channel)

    @cached_property
    def devices(self) -> DeviceServiceStub:
        """DeviceService."""
        from gpud.v1.devices_pb2_grpc import DeviceServiceStub

        return DeviceServiceStub(self._channel)

    @cached_property
    def telemetry(self) -> TelemetryServiceStub:
        """TelemetryService."""
        from gpud.v1.telemetry_pb2_grpc import TelemetryServiceStub

        return TelemetryServiceStub(self._channel)

    @cached_property
    def reservations(self) -> ReservationServiceStub:
        """ReservationService."""
        from gpud.v1.reservations_pb2_grpc import ReservationServiceStub

        return ReservationServiceStub(self._channel)

    @cached_property
    def models(self) -> ModelServiceStub:
        """ModelService."""
        from gpud.v1.models_pb2_grpc import ModelServiceStub

        return ModelServiceStub(self._channel)

    @cached_property
    def instances(self) -> InstanceServiceStub:
        """InstanceService."""
        from gpud.v1.instances_pb2_grpc import InstanceServiceStub

        return InstanceServiceStub(self._channel)

    def begin(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        then: Callable[[], None] | None = None,
    ) -> Callable[[], Answer]:
        """Start a call; what comes back waits for its answer. Several may be under way at once.

        `then` is called, in a thread of gRPC's, once the answer is there or the call has failed.
        """
        call = method.future(request, timeout=self._timeout_seconds)
        if then is not None:
            call.add_done_callback(lambda _: then())

        def answer() -> Answer:
            try:
                return call.result()
            except grpc.RpcError as error:
                raise self._failure(error) from error

        return answer

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        *,
        within_seconds: float | None = None,
    ) -> Answer:
        """One call and its answer, within the timeout, or a shorter time."""
        if within_seconds is None:
            return self.begin(method, request)()
        limit = min(within_seconds, self._timeout_seconds)
        try:
            return method(request, timeout=limit)
        except grpc.RpcError as error:
            raise failure_of(error, self.address, limit) from error

    def pages(
        self,
        method: grpc.UnaryUnaryMultiCallable[PagedRequest, PagedAnswer],
        request: PagedRequest,
    ) -> Iterator[PagedAnswer]:
        """Every page of a list, each within the timeout."""
        request.page_size = request.page_size or PAGE_SIZE
        for _ in range(_MAX_PAGES):
            answer = self.call(method, request)
            yield answer
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    @contextmanager
    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> Iterator[Iterator[Answer]]:
        """The messages of a stream; leaving the block ends it.

        An answer at all is bounded by the timeout. The stream itself is not: gpud bounds a load,
        and to follow something is meant to last.
        """
        self._knock()
        opened = self.follow(method, request)
        try:
            yield iter(opened)
        finally:
            opened.cancel()

    def follow(
        self, method: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> Stream[Answer]:
        """A stream that is read in a thread; without a daemon it breaks at its first message."""
        return Stream(method(request), self._failure)

    def converse(
        self, method: grpc.StreamStreamMultiCallable[Request, Answer], requests: Iterable[Request]
    ) -> Stream[Answer]:
        """As `follow`, for a stream of requests; gRPC takes them in a thread of its own."""
        return Stream(method(iter(requests)), self._failure)

    def _knock(self) -> None:
        """Wait until somebody answers at the address.

        By a call of gRPC's own health service, whose empty request is no bytes at all: to ask the
        channel itself (`channel_ready_future`) costs 200 ms when it is closed, which is how often
        grpc's poller of its state looks whether it should end.
        """
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        check = self._channel.unary_unary(_HEALTH_CHECK)
        try:
            check(b"", timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            if error.code() in _NO_ANSWER:
                # Nothing was asked for yet, so nothing can have been done.
                raise replace(self._failure(error), outcome_unknown=False) from error

    def _failure(self, error: grpc.RpcError) -> Failure:
        return failure_of(error, self.address, self._timeout_seconds)

    def close(self) -> None:
        """Close the channel, if it was opened."""
        if "_channel" in self.__dict__:
            self._channel.close()
