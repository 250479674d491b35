"""What every service reads from: the newest snapshot, the durable promises, the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.clock import Clock
from gpud.devices.snapshot import Sample, Snapshot
from gpud.feed import Feed
from gpud.instances.instance import Instance
from gpud.ledger.charge import Charge
from gpud.ledger.promises import Promises
from gpud.ledger.reservation import Reservation
from gpud.rpc import messages
from gpud.v1 import devices_pb2, instances_pb2, reservations_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Reading to report."""

    snapshots: Feed[Snapshot]
    promises: Promises
    clock: Clock

    def charges(self) -> dict[str, Charge]:
        """Every device's terms, on the durable promises."""
        return self.promises.ledger.charges(self.promises.durable)

    def samples(self) -> tuple[Sample, ...]:
        """The newest sample of every device."""
        latest = self.snapshots.latest
        return latest.samples if latest is not None else ()

    def devices(self, samples: Iterable[Sample], *, processes: bool) -> list[devices_pb2.Device]:
        """Devices as told."""
        terms = self.charges()
        held = frozenset(
            id_
            for book in self.promises.durable.devices().values()
            for id_ in book.holders
            if processes
        )
        return [
            messages.device(sample, terms.get(sample.info.uuid), processes=processes, held=held)
            for sample in samples
        ]

    def reservation(self, value: Reservation) -> reservations_pb2.Reservation:
        """A reservation as told."""
        return messages.reservation(value, self.terms_of(value), self.samples())

    def terms_of(self, value: Reservation) -> dict[str, Charge]:
        """The terms of a reservation's own devices."""
        return self.promises.ledger.charges_of(
            [grant.device for grant in value.grants], self.promises.durable
        )

    def instance(self, value: Instance) -> instances_pb2.Instance:
        """An instance as told."""
        terms = self.promises.ledger.charges_of(value.devices, self.promises.durable)
        return messages.instance(value, terms)
