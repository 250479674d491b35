"""Keeping a lease alive: a renewal at each third of its ttl, over restarts of the daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from gpuctl.client import Client, Stream
from gpuctl.leases.streams import Inbox, LastingStream, goes_on
from gpuctl.messages import seconds_of
from gpud.v1.reservations_pb2 import KeepAliveRequest, KeepAliveResponse, Reservation

# gpud's own default, for a lease that does not tell its ttl.
_DEFAULT_TTL_SECONDS = 600.0
# Two renewals may be lost before a lease is.
_RENEWALS_IN_A_TTL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What gpud answered to a renewal."""

    answer: KeepAliveResponse


class Keeper:
    """Renews from `start` to `end`. Each answer is posted, and what befalls the stream."""

    def __init__(self, client: Client, reservation: Reservation, inbox: Inbox) -> None:
        ttl_seconds = seconds_of(reservation.ttl) or _DEFAULT_TTL_SECONDS
        self._pause_seconds = ttl_seconds / _RENEWALS_IN_A_TTL
        self._name = reservation.name
        self._client = client
        self._inbox = inbox
        self._answered = threading.Event()
        self._stream = LastingStream(inbox, self._opened, self._heed)

    def start(self) -> None:
        """Renew now and from now on."""
        self._stream.start()

    def end(self) -> None:
        """Renew no more."""
        self._stream.end()

    def _opened(self) -> Stream[KeepAliveResponse]:
        return self._client.converse(self._client.reservations.KeepAlive, self._begun)

    def _begun(self) -> Iterator[KeepAliveRequest]:
        # One for each stream: gRPC's thread may still be in the generator of one that broke.
        self._answered = threading.Event()
        return self._requests(self._answered)

    def _requests(self, answered: threading.Event) -> Iterator[KeepAliveRequest]:
        while True:
            answered.clear()
            yield KeepAliveRequest(name=self._name)
            if self._stream.ended.wait(self._pause_seconds) or answered is not self._answered:
                return
            if not answered.is_set():
                # Whoever is there, does not serve: another call finds out who is.
                self._stream.break_off()
                return

    def _heed(self, answer: KeepAliveResponse) -> bool:
        self._answered.set()
        self._inbox.put(Kept(answer=answer))
        return not goes_on(answer.state)
