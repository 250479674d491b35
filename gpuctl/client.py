"""One connection to gpud: typed stubs, a deadline on every call, failures that people can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import grpc

from gpuctl.access.channel import open_channel
from gpuctl.access.standing import REASONS, standing
from gpuctl.access.tokens import bearer_for
from gpuctl.failures import Failure, failure_of

if TYPE_CHECKING:
    from gpuctl.access.context import Context
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

# What calls carry beside their request.
Metadata = tuple[tuple[str, str], ...]


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
    """The messages of a stream, opened and read by one thread. Any other may cancel it.

    `opened` opens it; given the error that it broke with, once more, or None where that would
    bring the same.
    """

    def __init__(
        self,
        opened: Callable[[grpc.RpcError | None], _Call[Answer] | None],
        failure: Callable[[grpc.RpcError], Failure],
    ) -> None:
        self._opened = opened
        self._failure = failure
        self._call: _Call[Answer] | None = None
        self._is_cancelled = False

    def __iter__(self) -> Iterator[Answer]:
        """Message by message until it ends. Raises Failure where it breaks, or is cancelled."""
        heard = False
        call = self._open(None)
        while call is not None:
            try:
                for answer in call:
                    heard = True
                    yield answer
            except grpc.RpcError as error:
                call = None if heard else self._open(error)
                heard = True  # once more, but not twice
                if call is None:
                    raise self._failure(error) from error
            else:
                return

    def cancel(self) -> None:
        """End it, whoever reads it."""
        self._is_cancelled = True
        if self._call is not None:
            self._call.cancel()

    def _open(self, error: grpc.RpcError | None) -> _Call[Answer] | None:
        call = self._opened(error)
        if call is not None:
            self._call = call
            if self._is_cancelled:  # by another thread, which saw the call before this one
                call.cancel()
        return call


class Client:
    """A lazily opened channel. All methods raise Failure and nothing else of the wire."""

    def __init__(self, context: Context, timeout_seconds: float) -> None:
        self.address = context.address
        self._context = context
        self._timeout_seconds = timeout_seconds
        self._bearer = bearer_for(context, timeout_seconds)

    @property
    def is_known(self) -> bool:
        """Whether calls tell by themselves who calls. Raises Failure as a call would."""
        return self._context.uses_tls or self._bearer.token() is not None

    @property
    def is_local(self) -> bool:
        """Whether gpud is on this host for sure: pids mean the same to both."""
        return self._context.is_unix

    @cached_property
    def _channel(self) -> grpc.Channel:
        return open_channel(self._context)

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
        *,
        within_seconds: float | None = None,
        at_least_seconds: float = 0.0,
    ) -> Callable[[], Answer]:
        """Start a call; what comes back waits for its answer. Several may be under way at once.

        `then` is called, in a thread of gRPC's, once the answer is there or the call has failed.
        """
        limit = min(within_seconds or self._timeout_seconds, self._timeout_seconds)
        limit = max(limit, at_least_seconds)
        sent = self._bearer.token()
        call = method.future(request, timeout=limit, metadata=_metadata(sent))
        if then is not None:
            call.add_done_callback(lambda _: then())

        def answer() -> Answer:
            try:
                try:
                    return call.result()
                except grpc.RpcError as error:
                    if not self._renewed(error, sent):
                        raise
                fresh = _metadata(self._bearer.token())
                return method.future(request, timeout=limit, metadata=fresh).result()
            except grpc.RpcError as error:
                raise self._failure(error, limit) from error

        return answer

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        *,
        within_seconds: float | None = None,
        at_least_seconds: float = 0.0,
    ) -> Answer:
        """One call and its answer, within the timeout, or a shorter time, or what it needs."""
        return self.begin(
            method, request, within_seconds=within_seconds, at_least_seconds=at_least_seconds
        )()

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
        return self._lasting(lambda metadata: method(request, metadata=metadata))

    def converse(
        self,
        method: grpc.StreamStreamMultiCallable[Request, Answer],
        requests: Callable[[], Iterable[Request]],
    ) -> Stream[Answer]:
        """As `follow`, for a stream of requests; gRPC takes them in a thread of its own.

        `requests` is called anew should the stream be opened a second time.
        """
        return self._lasting(lambda metadata: method(iter(requests()), metadata=metadata))

    def _lasting(self, begin: Callable[[Metadata | None], _Call[Answer]]) -> Stream[Answer]:
        """The token is that of the moment when it is opened; a refused one is replaced once."""
        sent: str | None = None

        def opened(error: grpc.RpcError | None) -> _Call[Answer] | None:
            nonlocal sent
            if error is not None and not self._renewed(error, sent):
                return None
            sent = self._bearer.token()
            return begin(_metadata(sent))

        return Stream(opened, self._failure)

    def _renewed(self, error: grpc.RpcError, sent: str | None) -> bool:
        """Whether a call that was refused for its token has another one to come with."""
        return error.code() is grpc.StatusCode.UNAUTHENTICATED and self._bearer.renewed(sent)

    def _knock(self) -> None:
        """Wait until somebody answers at the address.

        By a call of gRPC's own health service, whose empty request is no bytes at all: to ask the
        channel itself (`channel_ready_future`) costs 200 ms when it is closed, which is how often
        grpc's poller of its state looks whether it should end.
        """
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        check = self._channel.unary_unary(_HEALTH_CHECK)
        metadata = _metadata(self._bearer.token())
        try:
            check(b"", timeout=self._timeout_seconds, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() in _NO_ANSWER:
                # Nothing was asked for yet, so nothing can have been done.
                raise replace(self._failure(error), outcome_unknown=False) from error

    def _failure(self, error: grpc.RpcError, limit_seconds: float | None = None) -> Failure:
        failure = failure_of(error, self._context, limit_seconds or self._timeout_seconds)
        if failure.reason not in REASONS:
            return failure
        return replace(failure, notes=(*failure.notes, standing(self._context, self._bearer.says)))

    def close(self) -> None:
        """Close the channel, if it was opened."""
        if "_channel" in self.__dict__:
            self._channel.close()


def _metadata(token: str | None) -> Metadata | None:
    return None if token is None else (("authorization", f"Bearer {token}"),)
