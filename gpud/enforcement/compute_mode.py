"""Keeps the driver's compute mode in step with exclusive promises.

The former mode is durable before the mode is changed, and forgotten only once the device showed
it again: so a daemon that dies in between finds it and restores it. Nothing here believes the
driver's word, only what the device shows after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import structlog

from gpud.clock import Clock
from gpud.devices.driver import ModeOutcome, ModeRefusal
from gpud.devices.snapshot import DeviceKind, Health, Sample, Snapshot
from gpud.enforcement.telling import tell
from gpud.errors import EnforcementUnavailable, ReservationNotFound, StoreReadOnly
from gpud.events import Event
from gpud.feed import Feed
from gpud.ledger.change import Change
from gpud.ledger.charge import is_stale
from gpud.ledger.reservation import (
    Enforcement,
    Reservation,
    ReservationKind,
    ReservationState,
)
from gpud.promises.promises import Promises
from gpud.store import Row, SqliteStore

log = structlog.get_logger()

EXCLUSIVE = "exclusive_process"
ROW_KIND = "compute_mode"
# What failed for a reason that may pass is tried again, ever more rarely.
RETRY_FIRST_SECONDS = 5.0
RETRY_LONGEST_SECONDS = 300.0
# Whoever required it waits so long for what may pass, before it is released.
GIVE_UP_SECONDS = 30.0
_FOR_GOOD = frozenset({ModeRefusal.NOT_PERMITTED, ModeRefusal.NOT_SUPPORTED})

SetMode = Callable[[str, str], Awaitable[ModeOutcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """The mode that a device had before it was made exclusive, and in which boot."""

    mode: str
    boot_id: str
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSeams:
    """What the keeper reads and acts through; `set_mode` ends within a limit."""

    promises: Promises
    store: SqliteStore
    snapshots: Feed[Snapshot]
    clock: Clock
    set_mode: SetMode


@dataclass(slots=True)
class _Retry:
    """When something is due again, and what was told of its failure."""

    due_boottime: float = 0.0
    first_boottime: float | None = None  # of the failures
    pause_seconds: float = RETRY_FIRST_SECONDS
    told: set[str] = field(default_factory=set)

    def failed(self, now: float) -> None:
        """Put it off, longer each time."""
        if self.first_boottime is None:
            self.first_boottime = now
        self.due_boottime = now + self.pause_seconds
        self.pause_seconds = min(2 * self.pause_seconds, RETRY_LONGEST_SECONDS)


@dataclass(slots=True)
class _Device:
    """One device: what is durable of it, what it showed after the last order."""

    former: Former | None = None
    shown: str | None = None
    shown_boottime: float = float("-inf")
    # An order got no answer: it may still be carried out, whatever the device shows now.
    is_uncertain: bool = False
    restoring: _Retry = field(default_factory=_Retry)
    # One order at a time: setting and restoring must not overtake each other.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ModeKeeper:
    """Sets EXCLUSIVE_PROCESS for exclusive promises, and the former mode after them.

    `is_on`: the policy exclusive_process_mode. When it is off, nothing is set, and what an earlier
    life of the daemon set is restored.
    """

    def __init__(self, seams: ModeSeams, *, is_on: bool) -> None:
        self._seams = seams
        self.is_on = is_on
        self._devices = {
            uuid: _Device(former=former)
            for uuid, former in seams.promises.read(ROW_KIND, Former).items()
        }
        # By reservation: the devices refuse it for good, or when to try again.
        self._hopeless: set[str] = set()
        self._trying: dict[str, _Retry] = {}

    async def run(self) -> None:
        """Follow the promises and the devices until cancelled."""
        async for _, snapshot in self._seams.snapshots.follow():
            if snapshot.complete:
                await self.reconcile(snapshot)

    async def enforce(self, reservation: Reservation) -> Enforcement:
        """Have the driver keep others off each of its devices; DRIVER only when all show it.

        For a promise that is durable; what was achieved is noted in it. Never takes longer than
        one device's limit and the disk.
        """
        uuids = [grant.device for grant in reservation.grants if not grant.beside]
        if not self.is_on or not reservation.exclusive or not uuids:
            return Enforcement.LEDGER
        async with asyncio.TaskGroup() as tasks:
            tries = [tasks.create_task(self._exclude(uuid, reservation)) for uuid in uuids]
        # A part of it keeps nobody off the rest; it stays set while the promise stands.
        achieved = all(each.result() for each in tries)
        by = Enforcement.DRIVER if achieved else Enforcement.LEDGER
        if achieved:
            self._trying.pop(reservation.id, None)
        return by if await self._note(reservation.id, by) else Enforcement.LEDGER

    async def reconcile(self, snapshot: Snapshot) -> None:
        """Keep what exclusive promises need, restore what none needs any more."""
        durable = self._seams.promises.durable
        holders = {book.exclusive for book in durable.devices().values() if book.exclusive}
        self._hopeless &= holders
        self._trying = {id_: each for id_, each in self._trying.items() if id_ in holders}
        for holder in [durable.reservations[id_] for id_ in holders]:
            await self._keep(holder, snapshot)
        for uuid, device in tuple(self._devices.items()):
            if device.former is not None and not self._is_wanted(uuid):
                await self._restore(uuid, device)
            elif device.former is None and snapshot.find(uuid) is None:
                self._drop(uuid, device)

    def _drop(self, uuid: str, device: _Device) -> None:
        """A device that is gone, of which nothing is to be restored."""
        if not device.turn.locked():
            del self._devices[uuid]

    # Setting.

    async def _keep(self, holder: Reservation, snapshot: Snapshot) -> None:
        """An exclusive promise as it stands: enforced, drifted, or not tried yet."""
        if holder.state is not ReservationState.GRANTED:
            return
        uuids = [grant.device for grant in holder.grants if not grant.beside]
        is_noted = any(grant.enforcement is Enforcement.DRIVER for grant in holder.grants)
        has_drifted = any(self._has_drifted(uuid, snapshot) for uuid in uuids)
        if self.is_on and is_noted and not has_drifted:
            return
        if not self.is_on or holder.id in self._hopeless:
            if is_noted:
                await self._note(holder.id, Enforcement.LEDGER)
            return
        now = self._seams.clock.now().boottime
        retry = self._trying.setdefault(holder.id, _Retry())
        if now >= retry.due_boottime and await self.enforce(holder) is Enforcement.LEDGER:
            retry.failed(now)
            if _is_required(holder) and not is_noted:
                await self._wait_or_give_up(holder, retry, now)

    async def _wait_or_give_up(self, holder: Reservation, retry: _Retry, now: float) -> None:
        """Who asked for the driver's enforcement or nothing, and waited for it, has nothing."""
        last = (now if retry.first_boottime is None else retry.first_boottime) + GIVE_UP_SECONDS
        if holder.id not in self._hopeless and now < last:
            retry.due_boottime = min(retry.due_boottime, last)
            return
        event = Event(
            wall=self._seams.clock.now().wall,
            type="reservation.unenforced",
            subject=holder.name,
            reason="revoked, for it required enforcement by the driver",
        )
        tell(self._seams.promises, event)
        with suppress(StoreReadOnly, ReservationNotFound):
            await self._seams.promises.revoke(holder.id, str(unenforceable(holder)))

    async def _exclude(self, uuid: str, reservation: Reservation) -> bool:
        """Whether the device was seen to be exclusive after it was told to be."""
        device = self._devices.setdefault(uuid, _Device())
        async with device.turn:
            mode, problem = self._present(uuid)
            if mode is None:
                self._refused(uuid, reservation, problem or "its driver does not tell its mode")
                return False
            if not await self._remember(uuid, device, mode):
                self._refused(uuid, reservation, "the former mode cannot be written down")
                return False
            outcome = await self._set(uuid, device, EXCLUSIVE)
            if outcome.shown == EXCLUSIVE:
                self._changed(uuid, device, mode, reservation)
                return True
            if outcome.refusal in _FOR_GOOD:
                self._hopeless.add(reservation.id)
            self._refused(uuid, reservation, _why(outcome))
            if device.former is not None and outcome.shown == device.former.mode:
                await self._forget(uuid, device, None)
            return False

    def _present(self, uuid: str) -> tuple[str | None, str]:
        """The mode that the device has now, or why it cannot be set."""
        latest = self._seams.snapshots.latest
        sample = latest.find(uuid) if latest is not None else None
        if sample is None:
            return None, "it is not sampled"
        if sample.info.kind is not DeviceKind.GPU:
            return None, f"not supported: {_NOT_A_CARD[sample.info.kind]}"
        if sample.readings.mig_enabled:
            return None, "not supported: MIG is on, its slices have no mode"
        if sample.health is not Health.HEALTHY:
            return None, f"it is {sample.health.value}: {sample.health_reason}"
        if is_stale(sample, self._seams.clock.now().boottime):
            return None, "its newest sample is too old"
        return self._mode_now(uuid, sample), ""

    def _mode_now(self, uuid: str, sample: Sample) -> str | None:
        """What it showed last, in a sample or after an order."""
        device = self._devices.get(uuid)
        if device is not None and device.shown_boottime > sample.boottime:
            return device.shown
        return sample.readings.compute_mode

    def _has_drifted(self, uuid: str, snapshot: Snapshot) -> bool:
        """Whether somebody else has changed the mode of a device that is to be exclusive."""
        sample = snapshot.find(uuid)
        mode = self._mode_now(uuid, sample) if sample is not None else None
        return mode is not None and mode != EXCLUSIVE

    async def _remember(self, uuid: str, device: _Device, mode: str) -> bool:
        """Make the former mode durable, unless it is; whether it is now."""
        now = self._seams.clock.now()
        if device.former is not None and device.former.boot_id == now.boot_id:
            return True
        if mode == EXCLUSIVE:
            # Somebody else's choice: there is nothing to restore.
            return device.former is None or await self._forget(uuid, device, None)
        if self._seams.store.read_only_cause:
            return False
        former = Former(mode=mode, boot_id=now.boot_id, wall=now.wall)
        return await self._write(uuid, device, former, None)

    # Restoring.

    async def _restore(self, uuid: str, device: _Device) -> None:
        """Give the device its former mode back; as long as that fails it is tried again."""
        now = self._seams.clock.now()
        if now.boottime < device.restoring.due_boottime:
            return
        async with device.turn:
            former = device.former
            if former is None or self._is_wanted(uuid):
                return  # granted again meanwhile
            mode, _ = self._present(uuid)
            if mode is None:
                return  # it does not tell: nothing is known of it, and nothing forgotten
            if former.boot_id != now.boot_id:
                why = f"{mode} since the host was started anew, which resets modes"
            elif mode == former.mode and not device.is_uncertain:
                why = f"{mode} already, as before the exclusive promise"
            elif mode != EXCLUSIVE and not device.is_uncertain:
                why = f"{mode}, which somebody set meanwhile: left so"
            else:
                outcome = await self._set(uuid, device, former.mode)
                why = "the exclusive promise has ended"
                if outcome.shown != former.mode:
                    self._not_restored(uuid, device, outcome)
                    return
            event = self._event("", uuid, why, {"from": mode, "to": device.shown or mode})
            if await self._forget(uuid, device, event):
                device.restoring = _Retry()
            else:
                device.restoring.failed(now.boottime)

    def _not_restored(self, uuid: str, device: _Device, outcome: ModeOutcome) -> None:
        wanted = device.former.mode if device.former is not None else ""
        problem = f"cannot restore {wanted}: {_why(outcome)}; tried again"
        device.restoring.failed(self._seams.clock.now().boottime)
        if problem not in device.restoring.told:
            device.restoring.told.add(problem)
            self._post(self._event("_refused", uuid, problem, {"to": wanted}))

    # Both.

    def _is_wanted(self, uuid: str) -> bool:
        return self.is_on and self._seams.promises.durable.device(uuid).exclusive is not None

    async def _set(self, uuid: str, device: _Device, mode: str) -> ModeOutcome:
        device.is_uncertain = True
        outcome = await self._seams.set_mode(uuid, mode)
        device.is_uncertain = outcome.refusal is ModeRefusal.NO_ANSWER
        if outcome.shown is not None:
            device.shown = outcome.shown
            device.shown_boottime = self._seams.clock.now().boottime
        return outcome

    async def _forget(self, uuid: str, device: _Device, event: Event | None) -> bool:
        return await self._write(uuid, device, None, event)

    async def _write(
        self, uuid: str, device: _Device, former: Former | None, event: Event | None
    ) -> bool:
        """Make it durable; whether that succeeded."""
        body = None if former is None else msgspec.json.encode(former)

        def durable() -> None:
            device.former = former

        row = Row(kind=ROW_KIND, id=uuid, body=body)
        change = Change(events=(event,) if event is not None else ())
        try:
            # Shielded: who asked may leave while the row is on its way.
            await asyncio.shield(self._seams.promises.commit(change, (row,), durable))
        except StoreReadOnly as error:
            log.warning("device.compute_mode_unwritten", device=uuid, problem=str(error))
            return False
        return True

    async def _note(self, id_: str, by: Enforcement) -> bool:
        with suppress(StoreReadOnly, ReservationNotFound):
            await self._seams.promises.enforced(id_, by)
            return True
        return False

    # Telling.

    def _changed(self, uuid: str, device: _Device, before: str, holder: Reservation) -> None:
        if before == device.shown:
            return
        details = {"from": before, "to": EXCLUSIVE, "reservation": holder.name}
        self._post(self._event("", uuid, f"{holder.name} has it alone", details))

    def _refused(self, uuid: str, holder: Reservation, problem: str) -> None:
        """Told once for each reservation and reason."""
        if problem.startswith(ModeRefusal.NOT_SUPPORTED.value):
            self._hopeless.add(holder.id)
        told = self._trying.setdefault(holder.id, _Retry()).told
        if f"{uuid} {problem}" in told:
            return
        told.add(f"{uuid} {problem}")
        reason = f"{problem}; only the ledger keeps others off {holder.name}"
        details = {"to": EXCLUSIVE, "reservation": holder.name}
        self._post(self._event("_refused", uuid, reason, details))

    def _event(self, suffix: str, uuid: str, reason: str, details: dict[str, str]) -> Event:
        return Event(
            wall=self._seams.clock.now().wall,
            type=f"device.compute_mode{suffix}",
            subject=f"devices/{uuid}",
            reason=reason,
            details=details,
        )

    def _post(self, event: Event) -> None:
        tell(self._seams.promises, event)


def _is_required(holder: Reservation) -> bool:
    """Whether it is to end where the driver does not keep others off."""
    is_leased = holder.kind is ReservationKind.LEASED
    return is_leased and holder.request.require_enforcement is Enforcement.DRIVER


_NOT_A_CARD = {
    DeviceKind.HOST: "it is the host's RAM",
    DeviceKind.MIG: "a MIG slice has no mode of its own",
    DeviceKind.SIMULATED: "a simulated card keeps nobody off",
}


def _why(outcome: ModeOutcome) -> str:
    """A refusal, or a mode that did not take, in words."""
    if outcome.refusal is None:
        return f"the driver accepted it, but the device shows {outcome.shown or 'nothing'}"
    detail = f" ({outcome.detail})" if outcome.detail else ""
    advice = "; run gpud as root" if outcome.refusal is ModeRefusal.NOT_PERMITTED else ""
    return f"{outcome.refusal.value}{detail}{advice}"


def unenforceable(holder: Reservation) -> EnforcementUnavailable:
    """Why a promise that requires its drivers' enforcement cannot be kept."""
    return EnforcementUnavailable(
        device=", ".join(f"devices/{each.device}" for each in holder.grants if not each.beside),
        problem="it does not let gpud set the mode "
        "(`gpuctl events --type device.compute_mode_refused` says why)",
    )
