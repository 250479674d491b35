"""Streams that are meant to last: taken up again when the connection under them ends.

gpud ends each connection over TCP after tls.max_connection_age, and all of them when it restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc

from gpuctl.failures import Failure
from gpuctl.units import span_text

if TYPE_CHECKING:
    from gpuctl.client import Client

Request = TypeVar("Request")
Answer = TypeVar("Answer")

# Nine seconds in all, before a daemon that stays away is told.
_MOST_FAILURES = 8
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
# Only one that stood so long begins the count of failures anew: another that brings a message and
# breaks again would be opened for ever.
_LASTED_SECONDS = 5.0
# A connection that ended and is there again at once is nothing that a person needs to know.
_TOLD_FAILURES = 2


def _unsaid(_: str) -> None:
    """What is noted nowhere."""


class _Absence:
    """How long nothing came, told once it is more than the end of a connection."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._failures = 0
        self._since = 0.0

    def fail(self, failure: Failure) -> None:
        """The stream ended, or could not be begun again."""
        self._failures += 1
        if self._failures == 1:
            self._since = time.monotonic()
        elif self._failures == _TOLD_FAILURES:
            self._note(f"{failure.message}; trying again")

    def end(self) -> None:
        """A message came."""
        if self._failures >= _TOLD_FAILURES:
            away = span_text(time.monotonic() - self._since)
            self._note(f"gpud is back after {away}; what it showed meanwhile was not seen")
        self._failures = 0


@contextmanager
def following(
    client: Client,
    method: grpc.UnaryStreamMultiCallable[Request, Answer],
    request: Callable[[], Request],
    note: Callable[[str], None] = _unsaid,
) -> Iterator[Iterator[Answer]]:
    """The messages of a stream, over the ends of connections; leaving the block ends it.

    `request` is asked at each beginning, so that it can say where to go on. `note` is told that
    gpud stays away, and that it is back; not of a connection that is taken up again at once.
    Raises Failure where the stream never worked, is refused, or cannot be taken up again.
    """
    with closing(_answers(client, method, request, _Absence(note))) as answers:
        yield answers


def _answers(
    client: Client,
    method: grpc.UnaryStreamMultiCallable[Request, Answer],
    request: Callable[[], Request],
    absence: _Absence,
) -> Generator[Answer]:
    failures, reached, worked = 0, False, False
    while True:
        began: float | None = None
        try:
            with client.stream(method, request()) as answers:
                reached, began = True, time.monotonic()
                for answer in answers:
                    worked = True
                    absence.end()
                    yield answer
                return
        except Failure as failure:
            if began is not None and time.monotonic() - began >= _LASTED_SECONDS:
                failures, worked = 0, True
            # What gpud itself says at once, it would say again.
            goes_on = worked or (reached and not failure.reason)
            failures += 1
            if (
                failure.code is not grpc.StatusCode.UNAVAILABLE
                or not goes_on
                or failures > _MOST_FAILURES
            ):
                raise
            absence.fail(failure)
        time.sleep(min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)))


def beyond(seen: Sequence[str], told: Sequence[str]) -> Sequence[str]:
    """Of the last lines of something, those behind the ones that were `seen` last.

    All of them where none of those is among them any more.
    """
    if not seen:
        return told
    for end in range(len(told), 0, -1):
        common = min(end, len(seen))
        if list(told[end - common : end]) == list(seen[-common:]):
            return told[end:]
    return told
