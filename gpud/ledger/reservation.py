"""Pure: a promise of bytes on devices to an owner, and the lease it is held under."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind

DEFAULT_TTL_SECONDS = 600.0
MIN_TTL_SECONDS = 1.0
MAX_TTL_SECONDS = 7 * 86400.0


class ReservationState(enum.Enum):
    """Where a promise stands."""

    GRANTED = "granted"
    RELEASING = "releasing"  # ended, its bytes not yet seen back: still booked
    RELEASED = "released"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ReservationKind(enum.Enum):
    """What ends a promise."""

    LEASED = "leased"  # its deadline, unless renewed
    HELD = "held"  # the end of what it was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """An instant that survives restart and reboot: BOOTTIME rules within its boot, wall beyond."""

    boot_id: str
    boottime: float
    wall: float

    @classmethod
    def after(cls, now: Moment, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(boot_id=now.boot_id, boottime=now.boottime + seconds, wall=now.wall + seconds)

    def remaining_seconds(self, now: Moment) -> float:
        """Seconds left, ≤ 0 when reached. After a reboot the wall clock is all there is."""
        if self.boot_id == now.boot_id:
            return self.boottime - now.boottime
        return self.wall - now.wall

    def rebased(self, now: Moment, ttl_seconds: float) -> Deadline:
        """The same instant on the present boot's clock; never later than a fresh ttl would be."""
        if self.boot_id == now.boot_id:
            return self
        return Deadline.after(now, min(ttl_seconds, max(0.0, self.remaining_seconds(now))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The bytes of one reservation on one device.

    `residue_before_bytes` is what the device showed used beyond all known processes when the
    reservation ended: the bytes are back when no more than that is left. None before the end, or
    when the device could not tell.
    """

    device: str
    bytes: int
    residue_before_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A promise. Times named `_wall` are for people; deadlines rule."""

    id: str
    owner: str
    kind: ReservationKind
    state: ReservationState
    grants: tuple[Grant, ...]
    generation: int
    created_wall: float
    ttl_seconds: float | None = None
    deadline: Deadline | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    instance: str | None = None
    # A process was seen in it, or started in it: its bytes are free only once seen back.
    bound: bool = False
    # What it becomes when its bytes are back, and until when that may take.
    ending: ReservationState | None = None
    release_deadline: Deadline | None = None
    ended: Deadline | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """reservations/{id}."""
        return f"reservations/{self.id}"

    @property
    def booked(self) -> bool:
        """Whether its bytes count against its devices."""
        return self.state in {ReservationState.GRANTED, ReservationState.RELEASING}

    def environment(self, host_devices: frozenset[str]) -> dict[str, str]:
        """What processes inside the promise are started with; the host's RAM shows no GPU."""
        visible = [grant.device for grant in self.grants if grant.device not in host_devices]
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible), "GPUD_RESERVATION": self.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveRequest:
    """What is asked of the ledger. `devices` are UUIDs; `bytes` is per device."""

    owner: str
    bytes: int
    devices: tuple[str, ...] = ()
    device_count: int = 1
    device_kind: DeviceKind | None = None
    ttl_seconds: float | None = DEFAULT_TTL_SECONDS  # None: HELD
    labels: Mapping[str, str] = field(default_factory=dict)
    instance: str | None = None
