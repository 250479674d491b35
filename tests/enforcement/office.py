"""Promises on a real store, and devices that a test shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec

from gpud import assembly
from gpud.devices.attached import AttachmentTable
from gpud.devices.snapshot import DeviceKind, ProcessUse, Sample, Snapshot
from gpud.enforcement.attachment import AttachmentKeeper
from gpud.feed import Feed
from gpud.ledger.change import Change
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import (
    Enforcement,
    Reservation,
    ReserveRequest,
    Sharing,
)
from gpud.promises.promises import Promises
from gpud.promises.requests import Call
from gpud.settings import Policy
from tests.fakes import cards
from tests.fakes.clock import FakeClock
from tests.fakes.store import CrampedStore

GIB = 1024**3
GPU = cards.sample(0).info.uuid


def process(
    pid: int, size: int | None = GIB, claim: str | None = None, *, attached: bool = False
) -> ProcessUse:
    return replace(cards.process(pid, size, claim), attached=attached)


class Office:
    """One life of the daemon's promises; `samples` are what devices show, by alias."""

    def __init__(self, folder: Path, clock: FakeClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or FakeClock()
        self.store = CrampedStore(folder)
        self.promises = Promises(
            Ledger(assembly.ledger_settings(Policy())), self.store, self.clock
        )
        self.store.start(lambda _: None, lambda _: self.promises.restore())
        self.promises.restore()
        self.promises.waiting_for = ""
        self.feed: Feed[Snapshot] = Feed()
        self.samples = {"gpu0": cards.sample(0), "gpu1": cards.sample(1)}
        self.tables: list[AttachmentTable] = []
        self.attachments = AttachmentKeeper(self.promises, self.tables.append, self.clock)
        self.sequence = 0
        self.show()

    def show(self, **processes: tuple[ProcessUse, ...]) -> Snapshot:
        """A tick a second later, with these lists; what is not named shows what it did."""
        self.clock.advance(1.0)
        now = self.clock.now().boottime
        for alias, sample in self.samples.items():
            listed = processes.get(alias, sample.processes or ())
            used = sum(each.used_bytes or 0 for each in listed)
            self.samples[alias] = replace(
                sample,
                boottime=now,
                processes=listed,
                listed_boottime=now,
                readings=sample.readings.changed(memory_used_bytes=used),
                memory_used_at_list_bytes=used,
            )
        self.sequence += 1
        snapshot = cards.snapshot(*self.samples.values(), sequence=self.sequence, boottime=now)
        self.promises.observe(snapshot)
        self.feed.publish(snapshot)
        return snapshot

    def set_mode(self, alias: str, mode: str | None) -> None:
        sample = self.samples[alias]
        self.samples[alias] = replace(sample, readings=sample.readings.changed(compute_mode=mode))

    def change(self, alias: str, **changes: object) -> None:
        self.samples[alias] = replace(self.samples[alias], **changes)  # type: ignore[arg-type]

    def become(self, alias: str, kind: DeviceKind) -> None:
        sample: Sample = self.samples[alias]
        self.samples[alias] = replace(sample, info=replace(sample.info, kind=kind))

    async def reserve(
        self, id_: str, *, exclusive: bool = False, size: int = GIB, **asked: object
    ) -> Reservation:
        asked.setdefault("devices", (GPU,))
        request = ReserveRequest(
            owner="me",
            bytes=size,
            sharing=Sharing.EXCLUSIVE if exclusive else Sharing.SHARED,
            **asked,  # type: ignore[arg-type]
        )
        await self.promises.reserve(request, id_, Call(method="Reserve"))
        return self.promises.durable.reservations[id_]

    async def release(self, id_: str) -> None:
        await self.promises.release(id_, None, Call(method="Release"))

    def enforcement(self, id_: str) -> set[Enforcement]:
        return {grant.enforcement for grant in self.promises.durable.reservations[id_].grants}

    def rows(self, kind: str) -> dict[str, object]:
        return {id_: msgspec.json.decode(body) for id_, body in self.store.read_rows(kind)}

    async def events(self, *types: str) -> list[tuple[str, str]]:
        """(type, reason) of what was told, in order, once all of it is on the disk."""
        await asyncio.wait_for(self.promises.commit(Change()), 60)
        rows = self.store.read_entries("1", (), 1000, newest_first=False)
        told = [(type_, str(msgspec.json.decode(body)[1])) for _, _, type_, _, body in rows]
        return [each for each in told if each[0].startswith(types)]

    async def details(self, type_: str) -> list[dict[str, str]]:
        await self.events()
        rows = self.store.read_entries("type = ?", (type_,), 1000, newest_first=False)
        return [msgspec.json.decode(body)[2] for _, _, _, _, body in rows]

    def close(self) -> None:
        self.store.full = False
        self.store.gate.set()
        self.store.close()
