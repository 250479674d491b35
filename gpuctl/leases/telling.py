"""What is told on stderr while something is held: one line that changes, or few that stay."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from gpuctl.messages import seconds_of
from gpuctl.render import terminal_width
from gpuctl.tables import clean
from gpuctl.units import size_text, span_text

if TYPE_CHECKING:
    from gpud.v1.reservations_pb2 import Reservation

# Where lines stay, the same place in the queue is told again after so long.
_SPARSE_SECONDS = 30.0
_ERASE_LINE = "\r\x1b[K"


class Telling:
    """stderr of a command that waits or holds. `quiet`: only what must be told."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        quiet: bool = False,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._ticks = ticks
        self._quiet = quiet
        # None where it is closed.
        self._stream: TextIO | None = sys.stderr
        is_terminal = self._stream is not None and self._stream.isatty()
        self._is_terminal = is_terminal
        self._redraws = is_terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._told_position: int | None = None
        self._told_ticks = 0.0

    def queue(self, reservation: Reservation) -> None:
        """Where a waiting request stands."""
        if self._quiet:
            return
        text = waiting_text(reservation, self._now())
        if self._stream is not None and self._is_terminal:
            width = terminal_width(self._stream) - 1
            text = text if len(text) <= width else f"{text[: width - 1]}…"
        if self._redraws:
            self._write(f"{_ERASE_LINE}{text}")
            self._drawn = True
            return
        ticks, position = self._ticks(), reservation.queue_position
        if position != self._told_position or ticks - self._told_ticks >= _SPARSE_SECONDS:
            self._told_position, self._told_ticks = position, ticks
            self._write(f"{text}\n")

    def settle(self) -> None:
        """The line that changes is gone."""
        if self._drawn:
            self._write(_ERASE_LINE)
            self._drawn = False

    def say(self, text: str) -> None:
        """A line, unless --quiet."""
        if not self._quiet:
            self.insist(text)

    def insist(self, text: str) -> None:
        """A line, whatever was asked for."""
        self.settle()
        self._write(f"gpuctl: {clean(text)}\n")

    def _write(self, text: str) -> None:
        """Whoever does not listen to it must not end what is held."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.write(text)
                self._stream.flush()


def waiting_text(reservation: Reservation, now: float) -> str:
    """`r-1 waits, position 2: needs …; expected in 40s; waits 4m more`."""
    name = reservation.name.removeprefix("reservations/")
    position = reservation.queue_position
    place = f", position {position}" if reservation.HasField("queue_position") else ""
    parts = [f"{name} waits{place}"]
    if reservation.wait_reason:
        parts[0] += f": {reservation.wait_reason}"
    if reservation.HasField("expected_time"):
        left = max(0.0, seconds_of(reservation.expected_time) - now)
        parts.append(f"expected in {span_text(left)}")
    if reservation.HasField("wait_until_time"):
        left = max(0.0, seconds_of(reservation.wait_until_time) - now)
        parts.append(f"gives up in {span_text(left)}")
    return clean("; ".join(parts))


def grants_text(reservation: Reservation) -> str:
    """`r-1 holds 8 GiB on devices/…, …`."""
    name = reservation.name.removeprefix("reservations/")
    held = ", ".join(f"{size_text(g.bytes)} on {g.device}" for g in reservation.grants)
    return f"{name} holds {held}"
