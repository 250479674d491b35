"""Pure: what gpud says of devices: what is promised there, and how they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpud.devices.snapshot import DeviceInfo, Health, Sample
from gpud.ledger.books import Books
from gpud.ledger.charge import Charge, is_stale
from gpud.telemetry.page.cards import labels_of
from gpud.telemetry.page.table import (
    Column,
    Family,
    Labels,
    Number,
    Row,
    Table,
    counter,
    gauge,
    labelled,
)

_GRANTED = Family(
    name="gpud_device_granted_bytes",
    help="Bytes promised, by what holds them: an instance, a standing reservation, a lease.",
)
_HEALTH = Family(name="gpud_device_health", help="1 for how the device is, 0 for the others.")
_HEALTHS = tuple(Health)
_COLUMNS: tuple[Column, ...] = (
    gauge("gpud_device_capacity_bytes", "Memory of the device, of which bytes are promised."),
    gauge("gpud_device_reserve_bytes", "Bytes that are never promised."),
    Column(family=_GRANTED, labels='owner_kind="instance"'),
    Column(family=_GRANTED, labels='owner_kind="lease"'),
    Column(family=_GRANTED, labels='owner_kind="standing"'),
    gauge("gpud_device_charged_bytes", "Bytes promised, or used beyond that by who holds them."),
    gauge("gpud_device_observed_bytes", "Bytes that holders of promises use."),
    gauge("gpud_device_foreign_bytes", "Bytes used by processes that hold no promise."),
    gauge("gpud_device_unattributed_bytes", "Bytes in use that no process explains."),
    gauge("gpud_device_leaked_bytes", "Bytes still in use after their promise ended."),
    gauge(
        "gpud_device_grantable_bytes",
        "Bytes that a promise may take; none of a card in MIG mode.",
    ),
    *(Column(family=_HEALTH, labels=f'health="{each.value}"', form="%d") for each in _HEALTHS),
    gauge("gpud_device_pressure", "How full: 1 low, 2 normal, 3 high, 4 critical.", form="%d"),
    counter(
        "gpud_device_memory_pressure_events_total",
        "How often it came to be critically full since the daemon started.",
    ),
    gauge(
        "gpud_device_thermal",
        "How hot: 1 normal, 2 warning, 3 throttling, 4 critical.",
        form="%d",
    ),
    gauge(
        "gpud_device_suggested_action",
        "What to do: 1 nothing, 2 restart the app, 3 reset, 4 reboot, 5 inspect.",
        form="%d",
    ),
    gauge("gpud_device_cordoned", "Whether nothing new is granted there.", form="%d"),
    gauge("gpud_device_exclusive", "Whether one reservation has it alone.", form="%d"),
    gauge("gpud_device_processes", "Processes that were listed there."),
)
_HEALTHY = tuple(each is Health.HEALTHY for each in _HEALTHS)
_NO_CHARGE: Row = (None,) * 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What is promised: charges by UUID, the books, and bytes of instances by UUID."""

    charges: Mapping[str, Charge]
    books: Books
    of_instances: Mapping[str, int] = field(default_factory=dict)


class Devices:
    """The part of the page about devices."""

    def __init__(self) -> None:
        self._labels, self._long_labels = Labels(labels_of), Labels(_info)
        self._table = Table(_COLUMNS)
        self._walls = Table(
            [gauge("gpud_device_sample_timestamp_seconds", "When it was last read.")]
        )
        self._infos = Table([gauge("gpud_device_info", "What does not change of a device.")])

    def render(self, samples: tuple[Sample, ...], promised: Promised, now_boottime: float) -> str:
        """Of all devices, the host's memory among them."""
        infos = tuple([each.info for each in samples])
        labels = self._labels.of(infos)
        return "".join(
            (
                self._infos.render(self._long_labels.of(infos), [(1,)] * len(infos)),
                self._table.render(
                    labels, [_row(each, promised, now_boottime) for each in samples]
                ),
                self._walls.render(labels, [(round(each.wall, 3),) for each in samples]),
            )
        )


def _info(info: DeviceInfo) -> str:
    return labelled(
        device=info.alias,
        uuid=info.uuid,
        kind=info.kind.value,
        model_name=info.model_name,
        pci_bus_id=info.pci_bus_id or "",
        driver_version=info.driver_version or "",
        numa_node="" if info.numa_node is None else str(info.numa_node),
        parent_uuid=info.parent_uuid or "",
    )


def _row(sample: Sample, promised: Promised, now_boottime: float) -> Row:
    uuid, books = sample.info.uuid, promised.books
    processes, health = sample.processes, sample.health
    return (
        *_charged(sample, promised, now_boottime),
        *(_HEALTHY if health is Health.HEALTHY else [health is each for each in _HEALTHS]),
        sample.pressure,
        sample.pressure_events,
        sample.thermal,
        sample.verdict.action,
        uuid in books.cordons,
        books.device(uuid).exclusive is not None,
        None if processes is None else len(processes),
    )


def _charged(sample: Sample, promised: Promised, now_boottime: float) -> Row:
    """As Device messages tell it: what follows from readings only while these can be believed."""
    uuid = sample.info.uuid
    charge = promised.charges.get(uuid)
    if charge is None:
        return (sample.info.memory_total_bytes, *_NO_CHARGE)
    standing = promised.books.device(uuid).standing_bytes
    of_instances = promised.of_instances.get(uuid, 0)
    known = sample.health is Health.HEALTHY and not is_stale(sample, now_boottime)
    seen: tuple[Number, ...] = (None, None, None)
    if known:
        seen = (charge.foreign_bytes, charge.unattributed_bytes, charge.grantable_bytes)
    return (
        sample.info.memory_total_bytes,
        charge.reserve_bytes,
        of_instances,
        charge.granted_bytes - standing - of_instances,
        standing,
        charge.charged_bytes,
        sum(charge.observed_bytes.values()) if sample.processes is not None else None,
        seen[0],
        seen[1],
        charge.leaked_bytes,
        seen[2],
    )
