"""Pure: the standing reservations of the configuration, as requests on what devices there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpud.devices.snapshot import Snapshot
from gpud.events import Event
from gpud.ledger.reservation import Priority, ReserveRequest, Sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A fixed share of devices, named by alias or UUID; `bytes` is on each."""

    name: str
    owner: str
    devices: tuple[str, ...]
    bytes: int
    sharing: Sharing = Sharing.SHARED
    host_bytes: int = 0
    labels: dict[str, str] = field(default_factory=dict)

    def missing(self, snapshot: Snapshot) -> list[str]:
        """Devices of it that are not there (yet)."""
        return [device for device in self.devices if snapshot.find(device) is None]

    def request(self, snapshot: Snapshot) -> ReserveRequest:
        """What it asks of the ledger: it waits without end, and before all others."""
        samples = [snapshot.find(device) for device in self.devices]
        return ReserveRequest(
            owner=self.owner,
            bytes=self.bytes,
            devices=tuple(sample.info.uuid for sample in samples if sample is not None),
            device_count=len(self.devices),
            sharing=self.sharing,
            priority=Priority.CRITICAL,
            ttl_seconds=None,
            max_wait_seconds=None,
            host_bytes=self.host_bytes,
            labels=self.labels,
            standing=True,
        )


def standing_events(missing: Mapping[str, Sequence[str]], wall: float) -> tuple[Event, ...]:
    """Who of them cannot be held for want of a device."""
    return tuple(
        Event(
            wall=wall,
            type="reservation.device_missing",
            subject=f"reservations/{name}",
            reason=f"{', '.join(devices)} is not on this host; it is held once it is there",
            details={"devices": ",".join(devices)},
        )
        for name, devices in missing.items()
    )


def requests_of(
    standing: Iterable[Standing], snapshot: Snapshot
) -> tuple[dict[str, ReserveRequest], dict[str, list[str]]]:
    """Those whose devices are all there, by name, and what the others miss."""
    requests, missing = {}, {}
    for each in standing:
        lacking = each.missing(snapshot)
        if lacking:
            missing[each.name] = lacking
        else:
            requests[each.name] = each.request(snapshot)
    return requests, missing
