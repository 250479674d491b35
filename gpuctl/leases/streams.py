"""Streams that outlive the daemon's restarts, each read by a thread that posts to one inbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import grpc

from gpuctl.client import Client, Stream
from gpuctl.failures import Failure
from gpud.v1.reservations_pb2 import (
    Reservation,
    ReservationState,
    WatchReservationRequest,
    WatchReservationResponse,
)

Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_JOIN_SECONDS = 2.0
# To ask again would bring the same answer. Every other failure may pass.
_FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
_GOES_ON = {
    ReservationState.RESERVATION_STATE_QUEUED,
    ReservationState.RESERVATION_STATE_GRANTED,
}

# Whoever waits reads one queue, and everything that can happen is put there. SimpleQueue's put may
# be called from a signal handler.
Inbox = SimpleQueue[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The reservation as it stands after a change."""

    reservation: Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A stream broke; it is tried again until it is told to end."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """A stream that had broken brings messages again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A stream was refused for good."""

    failure: Failure


def is_final(failure: Failure) -> bool:
    """Whether to ask again would bring the same answer."""
    return failure.code in _FINAL


def goes_on(state: int) -> bool:
    """Whether a reservation in this state waits or holds its bytes for its owner."""
    return state in _GOES_ON


class LastingStream(Generic[Answer]):
    """A stream that is opened again whenever it breaks, until `end` or its last message.

    `heed` is called with each message, in the thread that reads; it answers whether it was the
    last. What befalls the stream is put into the inbox.
    """

    def __init__(
        self, inbox: Inbox, opened: Callable[[], Stream[Answer]], heed: Callable[[Answer], bool]
    ) -> None:
        self._inbox = inbox
        self._opened = opened
        self._heed = heed
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream[Answer] | None = None
        self._is_broken = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def end(self) -> None:
        """No message is heeded after this."""
        with self._lock:
            self.ended.set()
        self.break_off()
        self._thread.join(_JOIN_SECONDS)

    def break_off(self) -> None:
        """Cancel the stream as it is now; unless it was told to end, another follows."""
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.cancel()

    def _read(self) -> None:
        while (stream := self._open()) is not None:
            failure = self._read_one(stream)
            if failure is None or self.ended.is_set():
                return
            if is_final(failure):
                self._tell_mended()
                self._inbox.put(Refused(failure=failure))
                return
            if not self._is_broken:
                self._is_broken = True
                self._inbox.put(Broken(failure=failure))
            if self.ended.wait(self._pause_seconds):
                return
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _read_one(self, stream: Stream[Answer]) -> Failure | None:
        """How it broke; None after its last message."""
        try:
            for answer in stream:
                self._tell_mended()
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                if self.ended.is_set() or self._heed(answer):
                    stream.cancel()
                    return None
        except Failure as failure:
            return failure
        return Failure(message="gpud ended the stream", code=grpc.StatusCode.UNAVAILABLE)

    def _tell_mended(self) -> None:
        if self._is_broken:
            self._is_broken = False
            self._inbox.put(Mended())

    def _open(self) -> Stream[Answer] | None:
        with self._lock:
            if self.ended.is_set():
                return None
            self._stream = self._opened()
            return self._stream


def watch(client: Client, name: str, inbox: Inbox) -> LastingStream[WatchReservationResponse]:
    """Post the reservation now and at each change, until it has ended."""

    def opened() -> Stream[WatchReservationResponse]:
        request = WatchReservationRequest(name=name)
        return client.follow(client.reservations.WatchReservation, request)

    def heed(answer: WatchReservationResponse) -> bool:
        inbox.put(Seen(reservation=answer.reservation))
        return not goes_on(answer.reservation.state)

    return LastingStream(inbox, opened, heed)
