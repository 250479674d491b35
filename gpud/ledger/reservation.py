"""Pure: a promise of bytes on devices to an owner, and the lease it is held under."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind

# Part of the stored format: a field that has its default is left out of a row.
DEFAULT_TTL_SECONDS = 600.0
MIN_TTL_SECONDS = 1.0
MAX_TTL_SECONDS = 7 * 86400.0


class ReservationState(enum.Enum):
    """Where a promise stands."""

    QUEUED = "queued"  # waits for its bytes
    GRANTED = "granted"
    RELEASING = "releasing"  # ended, its bytes not yet seen back: still booked
    RELEASED = "released"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ReservationKind(enum.Enum):
    """What ends a promise."""

    LEASED = "leased"  # its deadline, unless renewed
    HELD = "held"  # the end of what it was made for: an instance, an entry of the configuration


class Sharing(enum.Enum):
    """Whether others may hold bytes on the same device."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


class Placement(enum.Enum):
    """Which of the devices that fit are taken."""

    PACK = "pack"  # the fullest, so that whole devices stay free
    SPREAD = "spread"  # the emptiest


class Priority(enum.IntEnum):
    """Who waits less."""

    BATCH = 1
    NORMAL = 2
    INTERACTIVE = 3
    CRITICAL = 4


class Enforcement(enum.Enum):
    """What keeps others off a grant."""

    LEDGER = "ledger"  # nobody else is promised these bytes
    DRIVER = "driver"  # the driver refuses other processes


class Deadline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bytes of one reservation on one device.

    `residue_before_bytes` is what the device showed used beyond all known processes when the
    reservation ended: the bytes are back when no more than that is left. None before the end, or
    when the device could not tell.
    """

    device: str
    bytes: int
    residue_before_bytes: int | None = None
    enforcement: Enforcement = Enforcement.LEDGER
    beside: bool = False  # RAM beside the devices; never exclusive


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes per device on a number of devices, and which may carry them (UUIDs, or a kind)."""

    bytes: int
    device_count: int = 1
    devices: tuple[str, ...] = ()
    device_kind: DeviceKind | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process, by pid and start (clock ticks after boot), or a cgroup, that is the owner's."""

    wall: float
    boottime: float = 0.0  # 0: in an earlier boot, or by an earlier version
    pid: int | None = None
    start_time: int | None = None
    cgroup: str = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another needs the bytes, by this deadline."""

    by: str
    deadline: Deadline


class ReserveRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of the ledger. `devices` are UUIDs; `bytes` is per device."""

    owner: str
    bytes: int
    devices: tuple[str, ...] = ()
    device_count: int = 1
    device_kind: DeviceKind | None = None
    alternatives: tuple[Shape, ...] = ()  # tried in order after the above
    sharing: Sharing = Sharing.SHARED
    placement: Placement = Placement.PACK
    numa_node: int | None = None  # preferred
    priority: Priority = Priority.NORMAL
    preemptible: bool = False
    ttl_seconds: float | None = DEFAULT_TTL_SECONDS  # None: HELD
    max_wait_seconds: float | None = 0.0  # 0: refused when it does not fit; None: without end
    host_bytes: int = 0  # RAM beside the devices
    require_enforcement: Enforcement = Enforcement.LEDGER
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    instance: str | None = None
    within: str | None = None  # the standing reservation whose bytes it uses
    standing: bool = False
    asked_by: str = ""  # an admin who asked for the owner

    @property
    def exclusive(self) -> bool:
        """Whether it wants its devices alone."""
        return self.sharing is Sharing.EXCLUSIVE

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What would do, the most wanted first."""
        first = Shape(
            bytes=self.bytes,
            device_count=self.device_count,
            devices=self.devices,
            device_kind=self.device_kind,
        )
        return (first, *self.alternatives)


class Reservation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A promise, or a request that waits for one. Times named `_wall` are for people."""

    id: str
    request: ReserveRequest
    kind: ReservationKind
    state: ReservationState
    created: Deadline  # the moment it came: its place in the queue, its tenure
    grants: tuple[Grant, ...] = ()
    generation: int = 1
    ttl_seconds: float | None = None
    deadline: Deadline | None = None  # QUEUED: of its wait; GRANTED: of its lease
    granted: Deadline | None = None
    # A process was seen in it, or started in it: its bytes are free only once seen back.
    bound: bool = False
    attachments: tuple[Attachment, ...] = ()
    notice: Notice | None = None
    # It passed those that wait, and may be renewed no further than this while one still does.
    passes: tuple[Notice, ...] = ()
    # What it becomes when its bytes are back, and until when that may take.
    ending: ReservationState | None = None
    release_deadline: Deadline | None = None
    ended: Deadline | None = None
    reason: str = ""
    ended_by: str = ""  # an admin who released it for the owner

    @classmethod
    def asked(cls, id_: str, request: ReserveRequest, now: Moment) -> Reservation:
        """A request as it comes in, waiting."""
        wait = request.max_wait_seconds
        held = request.ttl_seconds is None
        return cls(
            id=id_,
            request=request,
            kind=ReservationKind.HELD if held else ReservationKind.LEASED,
            state=ReservationState.QUEUED,
            created=Deadline.after(now, 0),
            ttl_seconds=request.ttl_seconds,
            deadline=None if wait is None else Deadline.after(now, wait),
        )

    @property
    def name(self) -> str:
        """reservations/{id}."""
        return f"reservations/{self.id}"

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.request.owner

    @property
    def instance(self) -> str | None:
        """The instance that it was made for."""
        return self.request.instance

    @property
    def within(self) -> str | None:
        """The standing reservation whose bytes it uses."""
        return self.request.within

    @property
    def exclusive(self) -> bool:
        """Whether it has its devices alone."""
        return self.request.exclusive

    @property
    def queued(self) -> bool:
        """Whether it waits for its bytes."""
        return self.state is ReservationState.QUEUED

    @property
    def booked(self) -> bool:
        """Whether its bytes count against its devices."""
        state = self.state  # compared, not hashed: an enum's hash costs more than all the rest
        return state is ReservationState.GRANTED or state is ReservationState.RELEASING

    def environment(self, host_devices: frozenset[str]) -> dict[str, str]:
        """What processes inside the promise are started with; the host's RAM shows no GPU."""
        visible = [grant.device for grant in self.grants if grant.device not in host_devices]
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible), "GPUD_RESERVATION": self.id}
