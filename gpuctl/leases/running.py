"""A command inside a promise: its signals, its lease, and what becomes of it when that is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from gpuctl.failures import EXIT_REFUSED_BASE, Failure, usage
from gpuctl.leases.child import EXIT_SIGNAL_BASE, Child, ChildEnded
from gpuctl.leases.ended import told_end
from gpuctl.leases.keeping import Keeper, Kept
from gpuctl.leases.losing import Losing
from gpuctl.leases.signals import Caught, Mask
from gpuctl.leases.streams import Broken, Inbox, Mended, Refused, Seen, goes_on, watch
from gpuctl.leases.telling import Telling
from gpuctl.leases.waiting import gives_up, next_of
from gpuctl.messages import enum_word, seconds_of
from gpuctl.session import request_id
from gpuctl.units import span_text
from gpud.v1.node_pb2 import GetNodeRequest
from gpud.v1.reservations_pb2 import (
    AttachProcessRequest,
    GetReservationRequest,
    KeepAliveResponse,
    PreemptionNotice,
    Reservation,
    ReservationKind,
    ReservationState,
)

if TYPE_CHECKING:
    from gpuctl.client import Client

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A signal to the whole group, and then to gpuctl alone, reaches the child once for the group; as
# timeout(1) sends both, what comes within this time is one.
_SAME_SECONDS = 0.1
# What gpud ends a process with, as a shell tells of it. A shell that ran the command does so too.
_ENDED_BY = {EXIT_SIGNAL_BASE + each: each for each in (signal.SIGTERM, signal.SIGKILL)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a run holds on to."""

    client: Client
    inbox: Inbox
    mask: Mask
    telling: Telling
    # Seconds since the epoch.
    now: Callable[[], float]


def check_same_host(client: Client) -> None:
    """Raises Failure where gpud runs on another machine than the command would."""
    told = client.call(client.node.GetNode, GetNodeRequest()).node
    try:
        here = _BOOT_ID.read_text().strip()
    except OSError:
        return
    if told.boot_id and told.boot_id != here:
        raise usage(
            f"the gpud at {client.address} runs on {told.hostname}, and the command would run "
            "here; use `gpuctl run` there"
        )


def granted(client: Client, name: str) -> Reservation:
    """A reservation that a command can run in. Raises Failure for any other."""
    request = GetReservationRequest(name=name)
    found = client.call(client.reservations.GetReservation, request).reservation
    if found.state != ReservationState.RESERVATION_STATE_GRANTED:
        state = enum_word(ReservationState.DESCRIPTOR, found.state)
        raise Failure(
            message=f"cannot run in {name}: it is {state}, not GRANTED",
            exit_code=EXIT_REFUSED_BASE + grpc.StatusCode.FAILED_PRECONDITION.value[0],
            notes=("`gpuctl run --vram SIZE -- CMD` makes one and waits for it",),
        )
    return found


def _stop_if_signalled(inbox: Inbox, name: str) -> None:
    """Raises Failure if a signal came before there was a child that could have got it.

    What is left of the wait is dropped as well.
    """
    signalled: Caught | None = None
    while not inbox.empty():
        signalled = gives_up(inbox.get()) or signalled
    if signalled is not None:
        raise Failure(
            message=f"stopped by {signalled.number.name} before the command began in {name}",
            exit_code=EXIT_SIGNAL_BASE + signalled.number,
        )


class Running:
    """The command from its start to its end, and the lease for as long."""

    def __init__(self, holding: Holding, reservation: Reservation, *, on_loss: str) -> None:
        self._holding = holding
        self._telling = holding.telling
        self._name = reservation.name
        self._reservation = reservation
        self._losing = Losing(acts=on_loss == "terminate")
        self._broken = 0
        self._lost = False
        self._notice: PreemptionNotice | None = None
        self._sent: dict[signal.Signals, float] = {}
        self._sent_for_loss: set[signal.Signals] = set()
        self._trouble = ""
        self._began = 0.0

    def run(self, words: tuple[str, ...]) -> int:
        """Its exit code, as a shell tells it. Raises Failure where it cannot be started."""
        held = self._holding
        _stop_if_signalled(held.inbox, self._name)
        self._began = held.now()
        child = Child(words, dict(self._reservation.environment), held.inbox, held.mask)
        watched = watch(held.client, self._name, held.inbox)
        keeper = None
        if self._reservation.kind != ReservationKind.RESERVATION_KIND_HELD:
            keeper = Keeper(held.client, self._reservation, held.inbox)
            keeper.start()
        watched.start()
        try:
            self._attach(child)
            return self._until_ended(child)
        finally:
            if keeper is not None:
                keeper.end()
            watched.end()

    def _attach(self, child: Child) -> None:
        client = self._holding.client
        if not client.is_local:
            return  # what has this pid there is another's
        request = AttachProcessRequest(
            request_id=request_id(),
            name=self._name,
            pid=child.pid,
            start_time=child.start_time,
        )
        try:
            client.call(client.reservations.AttachProcess, request)
        except Failure as failure:
            # Its environment names the reservation, which counts as well. A command that has
            # ended already needs nothing.
            if not child.is_over():
                self._telling.say(f"process {child.pid} is not attached: {failure.message}")

    def _until_ended(self, child: Child) -> int:
        while True:
            event = next_of(self._holding.inbox, self._losing.next_time)
            if isinstance(event, ChildEnded):
                self._end_rest(child)
                self._tell_end(child, event.code)
                return event.code
            if isinstance(event, Caught):
                self._forward(child, event)
            else:
                self._learn(event)
            for number in self._losing.due(time.monotonic()):
                self._sent_for_loss.add(number)
                child.tree.send(number)

    def _tell_end(self, child: Child, code: int) -> None:
        """Why the command ended by a signal that it did not get from here."""
        number = _ENDED_BY.get(code)
        if number is None or number in self._sent or number in self._sent_for_loss:
            return
        if text := told_end(self._holding.client, self._name, child.pid, self._began):
            self._telling.insist(text)

    def _end_rest(self, child: Child) -> None:
        """What a command that was told to end leaves behind would keep the bytes."""
        until = self._losing.kill_time
        if until is not None and not child.tree.wait(until):
            child.tree.send(signal.SIGKILL)

    def _learn(self, event: object) -> None:
        """What became of the promise, or of the way to gpud."""
        match event:
            case Seen(reservation=told) | Kept(answer=told):
                self._heed(told)
            case Broken(failure=failure):
                self._break(failure)
            case Mended():
                self._broken -= 1
                if not self._broken:
                    self._telling.say(f"connected to gpud again; {self._name} goes on")
            case Refused(failure=failure):
                self._refuse(failure)
            case _:
                pass  # a moment that something was due at

    def _forward(self, child: Child, caught: Caught) -> None:
        now = time.monotonic()
        if caught.by_terminal or now - self._sent.get(caught.number, -1.0) < _SAME_SECONDS:
            return
        self._sent[caught.number] = now
        child.tree.send_root(caught.number)

    def _heed(self, told: Reservation | KeepAliveResponse) -> None:
        """The promise as it stands now."""
        if isinstance(told, Reservation):
            self._tell_trouble(told)
        if not goes_on(told.state):
            reason = told.state_reason if isinstance(told, Reservation) else self._reason()
            self._lose(f"it is {enum_word(ReservationState.DESCRIPTOR, told.state)}", reason)
        elif told.HasField("preemption_notice"):
            self._announce(told.preemption_notice)
        elif self._notice is not None:
            self._notice = None
            self._losing.withdrawn()
            self._telling.say(f"{self._name} stays: its bytes are no longer asked for")

    def _tell_trouble(self, told: Reservation) -> None:
        """What ails the devices of the promise, once, and that nothing does any more."""
        if told.state != ReservationState.RESERVATION_STATE_GRANTED:
            return
        if told.state_reason == self._trouble:
            return
        self._trouble = told.state_reason
        if self._trouble:
            self._telling.insist(f"{self._name}: {self._trouble}; the command goes on")
        else:
            self._telling.insist(f"{self._name}: its devices are well again")

    def _announce(self, notice: PreemptionNotice) -> None:
        if notice == self._notice:
            return
        self._notice = notice
        left = max(0.0, seconds_of(notice.revoke_time) - self._holding.now())
        ahead = self._losing.announced(left, time.monotonic())
        then = "" if ahead is None else f"; the command gets SIGTERM in {span_text(ahead)}"
        by = notice.by or "another"
        self._telling.insist(f"{self._name} ends in {span_text(left)} for {by}{then}")

    def _lose(self, what: str, reason: str) -> None:
        if self._lost:
            return
        self._lost = True
        acts = self._losing.acts
        self._losing.lost(time.monotonic())
        why = f": {reason}" if reason else ""
        then = (
            "it gets SIGTERM now" if acts else "it goes on, on bytes that others may be promised"
        )
        self._telling.insist(f"{self._name} IS LOST while the command runs, {what}{why}; {then}")

    def _reason(self) -> str:
        """Why it ended, which an answer to a renewal does not tell."""
        client = self._holding.client
        request = GetReservationRequest(name=self._name)
        try:
            found = client.call(client.reservations.GetReservation, request).reservation
        except Failure:
            return ""
        return found.state_reason

    def _break(self, failure: Failure) -> None:
        """The command goes on: while gpud is away it promises these bytes to nobody else."""
        self._broken += 1
        if self._broken == 1:
            what = "the connection to gpud ended" if failure.outcome_unknown else failure.message
            self._telling.say(f"{what}; the command goes on, connecting again")

    def _refuse(self, failure: Failure) -> None:
        if failure.code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED}:
            self._lose("gpud no longer knows it", failure.message)
        else:
            self._telling.insist(f"{self._name} cannot be kept alive: {failure.message}")
