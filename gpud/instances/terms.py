"""Pure: how a load wants its bytes. Part of its stored record, for it may have to ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpud.ledger.reservation import Priority, Reservation, ReserveRequest, Sharing

if TYPE_CHECKING:
    from gpud.instances.instance import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTerms:
    """How a load wants its bytes. `devices` are UUIDs to choose among; none: any GPU."""

    devices: tuple[str, ...] = ()
    sharing: Sharing = Sharing.SHARED
    priority: Priority = Priority.NORMAL
    preemptible: bool = False
    max_wait_seconds: float = 0.0
    within: str | None = None  # a standing reservation
    labels: tuple[tuple[str, str], ...] = ()

    def settled(self, reservations: Mapping[str, Reservation]) -> LoadTerms:
        """With the devices named, where they follow from the standing reservation it is within.

        RAM that this one holds beside its cards is no place for a load.
        """
        outer = reservations.get(self.within or "")
        if outer is None or self.devices:
            return self
        return replace(
            self, devices=tuple(grant.device for grant in outer.grants if not grant.beside)
        )

    def request(self, instance: Instance, size: int) -> ReserveRequest:
        """A HELD promise of so many bytes for an instance."""
        return ReserveRequest(
            owner=instance.owner,
            bytes=size,
            devices=self.devices,
            sharing=Sharing.SHARED if self.within is not None else self.sharing,
            priority=self.priority,
            preemptible=self.preemptible,
            ttl_seconds=None,
            max_wait_seconds=self.max_wait_seconds,
            instance=instance.id,
            within=self.within,
            labels=dict(self.labels),
        )
