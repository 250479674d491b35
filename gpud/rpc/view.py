"""What every service reads from: the newest snapshot, the durable promises, the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpud.clock import Clock
from gpud.devices.snapshot import Readings, Sample, Snapshot
from gpud.enforcement.relations import excess_bytes, relations, slices_of
from gpud.feed import Feed
from gpud.instances.health.vital import Signs
from gpud.instances.instance import Instance, InstanceState
from gpud.ledger.charge import Charge, is_current
from gpud.ledger.reservation import Enforcement, Reservation
from gpud.promises.places import Places
from gpud.promises.promises import Promises
from gpud.rpc import (
    health_messages,
    life_messages,
    messages,
    metric_messages,
    reservation_messages,
)
from gpud.telemetry.engines.metrics import EngineMetrics
from gpud.v1 import devices_pb2, instances_pb2, reservations_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Reading to report."""

    snapshots: Feed[Snapshot]
    promises: Promises
    clock: Clock
    enforce: Callable[[Reservation], Awaitable[Enforcement]]
    places: Places
    signs: Callable[[str], Signs | None]  # of an instance's engine, by the instance's id
    engines: EngineMetrics

    def charges(self) -> dict[str, Charge]:
        """Every device's terms, on the durable promises."""
        return self.promises.ledger.charges(self.promises.durable)

    def samples(self) -> tuple[Sample, ...]:
        """The newest sample of every device."""
        latest = self.snapshots.latest
        return latest.samples if latest is not None else ()

    def warnings(self) -> list[str]:
        """What the newest snapshot warns of."""
        latest = self.snapshots.latest
        return [each.words for each in latest.troubles] if latest is not None else []

    def devices(self, samples: Iterable[Sample], *, processes: bool) -> list[devices_pb2.Device]:
        """Devices as told; of one that does not answer the readings are unknown."""
        terms, durable, present = self.charges(), self.promises.durable, self.samples()
        now = self.clock.now().boottime
        told = []
        for sample in samples:
            uuid = sample.info.uuid
            slices = slices_of(sample, present) if processes else frozenset()
            related = relations(sample, durable, slices) if processes else ()
            is_now = is_current(sample, now)
            shown = sample if is_now else replace(sample, readings=Readings())
            message = messages.device(shown, terms.get(uuid), related)
            cordon = self.promises.durable.cordons.get(uuid)
            message.cordoned = cordon is not None
            message.cordon_reason = cordon.reason if cordon is not None else ""
            exclusive = self.promises.durable.device(uuid).exclusive
            message.exclusive_reservation = f"reservations/{exclusive}" if exclusive else ""
            told.append(message)
        return told

    def reservation(self, value: Reservation) -> reservations_pb2.Reservation:
        """A reservation as told."""
        return self.reservations((value,))[0]

    def reservations(self, values: Sequence[Reservation]) -> list[reservations_pb2.Reservation]:
        """Reservations as told; those that wait with their places."""
        samples = self.samples()
        return [
            reservation_messages.reservation(
                value,
                self.terms_of(value),
                samples,
                self.places.place(value),
                self.promises.ledger.renewable_until(value) if value.passes else None,
            )
            for value in values
        ]

    def terms_of(self, value: Reservation) -> dict[str, Charge]:
        """The terms of a reservation's own devices, as far as it has anything to show there."""
        if not value.bound:
            return {}
        return self.promises.ledger.charges_of(
            [grant.device for grant in value.grants], self.promises.durable
        )

    def instance(self, value: Instance) -> instances_pb2.Instance:
        """An instance as told."""
        terms = self.promises.ledger.charges_of(value.devices, self.promises.durable)
        message = messages.instance(value, terms)
        health_messages.add_health(message, value, self.signs(value.id))
        life_messages.add_life(message, value)
        if over := self._overuse_bytes(value, terms):
            message.overuse_bytes = over
        reading = self.engines.newest.get(value.id)
        if reading is not None and value.state is InstanceState.READY:
            message.metrics.CopyFrom(metric_messages.metrics(reading, self.engines.label))
        held = self.promises.durable.queued.get(value.reservation or "")
        if held is not None and (place := self.places.place(held)) is not None:
            message.queue_position = place.position
            message.wait_reason = place.why
        return message

    def _overuse_bytes(self, value: Instance, terms: Mapping[str, Charge]) -> int:
        """What its processes hold beyond its promise, over its devices."""
        id_, books = value.reservation, self.promises.durable
        if id_ is None or id_ not in books.reservations or value.ended:
            return 0
        return sum(
            excess_bytes(id_, uuid, charge.observed_bytes[id_], books)
            for uuid, charge in terms.items()
            if id_ in charge.observed_bytes
        )
