"""Asking for a promise, waiting in the queue for it, and giving it back."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty

import grpc

from gpuctl.client import Client
from gpuctl.failures import (
    EXIT_REFUSED_BASE,
    EXIT_WAITED_OUT,
    Failure,
)
from gpuctl.leases.child import EXIT_SIGNAL_BASE
from gpuctl.leases.signals import GIVING_UP, Caught
from gpuctl.leases.streams import Broken, Inbox, Mended, Refused, Seen, is_final, watch
from gpuctl.leases.telling import Telling
from gpuctl.messages import seconds_of, word
from gpuctl.session import request_id
from gpuctl.units import span_text
from gpud.v1.reservations_pb2 import (
    ReleaseRequest,
    Reservation,
    ReservationState,
    ReserveRequest,
)

# So long the daemon may be away while a request waits in its queue.
RECONNECT_SECONDS = 30.0
# So long it may be away when something is to be given back.
_RELEASE_SECONDS = 5.0
_RELEASE_PAUSE_SECONDS = 0.2
# An answer that Ctrl-C met under way is still waited for, so that nothing stays promised unseen.
_LAST_ANSWER_SECONDS = 2.0
# After its last moment a request has so long to be told that it has ended.
_END_SECONDS = 10.0


def next_of(inbox: Inbox, until: float | None) -> object | None:
    """What happens next; None if nothing does until then, on the monotonic clock."""
    if until is None:
        return inbox.get()
    with suppress(Empty):
        return inbox.get(timeout=max(0.0, until - time.monotonic()))
    return None


def gives_up(event: object) -> Caught | None:
    """The signal, if it ends a wait; others are for a command, and there is none yet."""
    return event if isinstance(event, Caught) and event.number in GIVING_UP else None


class Asking:
    """One request and its way to a grant. Signals arrive in the inbox."""

    def __init__(
        self,
        client: Client,
        request: ReserveRequest,
        inbox: Inbox,
        telling: Telling,
        *,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> None:
        self._client = client
        self._request = request
        self._inbox = inbox
        self._telling = telling
        self._reconnect_seconds = reconnect_seconds

    def obtain(self) -> Reservation:
        """The reservation, GRANTED. Raises Failure when it is refused or has waited in vain.

        A signal releases what was promised or queued, and ends as a Failure too.
        """
        reservation = self._asked()
        if reservation.state == ReservationState.RESERVATION_STATE_QUEUED:
            reservation = self._granted(reservation)
        if reservation.state != ReservationState.RESERVATION_STATE_GRANTED:
            raise _ended(reservation, self._request)
        return reservation

    def _asked(self) -> Reservation:
        answered = object()
        answer = self._client.begin(
            self._client.reservations.Reserve, self._request, lambda: self._inbox.put(answered)
        )
        signalled: Caught | None = None
        until: float | None = None
        while (event := next_of(self._inbox, until)) is not answered:
            if caught := gives_up(event):
                signalled = signalled or caught
                until = until or time.monotonic() + _LAST_ANSWER_SECONDS
            elif event is None and signalled is not None:
                raise _unanswered(signalled)
        reservation = answer().reservation
        if signalled is not None:
            raise self._given_up(reservation.name, signalled)
        return reservation

    def _granted(self, queued: Reservation) -> Reservation:
        """The reservation once it no longer waits."""
        self._telling.queue(queued)
        watched = watch(self._client, queued.name, self._inbox)
        watched.start()
        until = time.monotonic() + seconds_of(self._request.max_wait) + _END_SECONDS
        mended_by: float | None = None
        lost: Failure | None = None
        try:
            while True:
                match next_of(self._inbox, min(until, mended_by or until)):
                    case Seen(reservation=reservation):
                        if reservation.state != ReservationState.RESERVATION_STATE_QUEUED:
                            return reservation
                        queued = reservation
                        self._telling.queue(reservation)
                    case Caught() as signalled:
                        if gives_up(signalled):
                            raise self._given_up(queued.name, signalled)
                    case Broken(failure=lost):
                        mended_by = time.monotonic() + self._reconnect_seconds
                        self._telling.say("the connection to gpud broke off; trying again")
                    case Mended():
                        mended_by = lost = None
                    case Refused(failure=failure):
                        raise failure
                    case _:
                        raise _unwatched(queued, lost)
        finally:
            self._telling.settle()
            watched.end()

    def _given_up(self, name: str, signalled: Caught) -> Failure:
        """What ends the command after a signal; the queue is left first."""
        self._telling.settle()
        failure = release(self._client, name, self._inbox)
        message = f"gave up waiting: {name} is released"
        if failure is not None:
            message = f"gave up waiting, but {name} could not be released: {failure.message}"
        return Failure(message=message, exit_code=EXIT_SIGNAL_BASE + signalled.number)


def release(client: Client, name: str, inbox: Inbox) -> Failure | None:
    """Give a reservation back, waiting a little for a daemon that restarts; why not, if not.

    One that is gone already counts as given back.
    """
    request = ReleaseRequest(request_id=request_id(), name=name)
    until = time.monotonic() + _RELEASE_SECONDS
    while True:
        try:
            client.call(client.reservations.Release, request)
        except Failure as failure:
            if failure.code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}:
                return None
            if is_final(failure) or time.monotonic() >= until:
                return failure
            pause = min(until, time.monotonic() + _RELEASE_PAUSE_SECONDS)
            while (event := next_of(inbox, pause)) is not None:
                if gives_up(event):
                    return failure
        else:
            return None


def _ended(reservation: Reservation, request: ReserveRequest) -> Failure:
    """A request that is over without a grant."""
    reason = f": {reservation.state_reason}" if reservation.state_reason else ""
    if reservation.state == ReservationState.RESERVATION_STATE_EXPIRED:
        waited = span_text(seconds_of(request.max_wait))
        return Failure(
            message=f"waited {waited} in vain for {reservation.name}{reason}",
            exit_code=EXIT_WAITED_OUT,
            notes=("`gpuctl explain` with the same options tells what is in the way",),
        )
    state = word(reservation, "state")
    return Failure(
        message=f"{reservation.name} was {state} by another while it waited{reason}",
        exit_code=EXIT_REFUSED_BASE + grpc.StatusCode.ABORTED.value[0],
        notes=("`gpuctl events --subject " + reservation.name + "` tells who did it",),
    )


def _unwatched(queued: Reservation, lost: Failure | None) -> Failure:
    """Nothing is heard of a request that still waits."""
    why = lost.message if lost is not None else "gpud tells nothing of it"
    return Failure(
        message=f"cannot wait any longer for {queued.name}: {why}; it is still queued",
        exit_code=EXIT_REFUSED_BASE + grpc.StatusCode.UNAVAILABLE.value[0],
        notes=(
            f"see how it stands: gpuctl show {queued.name}",
            f"give it up:        gpuctl release {queued.name}",
        ),
        code=grpc.StatusCode.UNAVAILABLE,
    )


def _unanswered(signalled: Caught) -> Failure:
    return Failure(
        message="gave up before gpud answered; it may have been promised",
        exit_code=EXIT_SIGNAL_BASE + signalled.number,
        notes=(
            "`gpuctl reservations` shows it, `gpuctl release` gives it back; "
            "else it ends after its ttl",
        ),
    )
