"""Pure: which devices carry a shape, or why none can."""

from __future__ import annotations

import msgspec

from gpud.devices.snapshot import DeviceKind
from gpud.errors import DeviceShortage, DeviceUnavailable, GpudError, VramInsufficient
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import Notice, Placement, ReserveRequest, Shape
from gpud.units import format_size


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A device that a shape may be placed on.

    `room_bytes` is what this request could have of it now; None: unknown. `most_bytes` bounds what
    it could ever have, inside a standing reservation; None: the device does. `rule` refuses it
    whatever its bytes, and `for_good` says that it always will; `obstacle` is somebody in the way,
    who may go. `passes` are those whom a grant here would pass. `within` is the id of the standing
    reservation whose bytes are meant.
    """

    charge: Charge
    kind: DeviceKind
    room_bytes: int | None
    most_bytes: int | None = None
    numa_node: int | None = None
    rule: str = ""
    for_good: bool = False
    obstacle: str = ""
    passes: tuple[Notice, ...] = ()
    within: str = ""

    def fits(self, size: int) -> bool:
        """Whether it can carry so many bytes now."""
        free = not self.rule and not self.obstacle
        return free and self.room_bytes is not None and size <= self.room_bytes

    def could_ever_fit(self, size: int) -> bool:
        """Whether it could, if nothing else were on it."""
        total = self.charge.total_bytes
        if self.most_bytes is not None and size > self.most_bytes:
            return False
        return total is not None and size <= total - self.charge.reserve_bytes

    def shortage(self) -> DeviceShortage:
        """The terms, for the refusal."""
        c = self.charge
        obstacle = self.obstacle
        if self.within and not self.rule:
            left, most = format_size(self.room_bytes or 0), format_size(self.most_bytes or 0)
            share = f"{left} left of {most} in reservations/{self.within}"
            obstacle = f"{share}; {obstacle}" if obstacle else share
        return DeviceShortage(
            device=f"devices/{c.uuid}",
            alias=c.alias,
            grantable_bytes=c.grantable_bytes,
            total_bytes=c.total_bytes,
            reserve_bytes=c.reserve_bytes,
            granted_bytes=c.granted_bytes,
            overuse_bytes=c.charged_bytes - c.granted_bytes,
            foreign_bytes=c.foreign_bytes or 0,
            unattributed_bytes=c.unattributed_bytes or 0,
            leaked_bytes=c.leaked_bytes,
            rule=self.rule,
            obstacle=obstacle,
        )


def eligible(uuid: str, kind: DeviceKind, shape: Shape) -> bool:
    """Whether a shape may be placed there at all: the host only when it is asked for."""
    if shape.devices:
        return uuid in shape.devices
    if shape.device_kind is not None:
        return kind is shape.device_kind
    return kind is not DeviceKind.HOST


def place(
    asked: list[Candidate], shape: Shape, request: ReserveRequest, *, numa_aware: bool = True
) -> tuple[Candidate, ...]:
    """The devices to take, `device_count` of the candidates asked for.

    PACK takes the fullest that still carry the bytes, so that a later, larger request finds a
    whole device; SPREAD the emptiest. Several packed devices are taken from one NUMA node where
    one has enough. Ties go by the candidates' order. Raises VramInsufficient, DeviceUnavailable.
    """
    fitting = [candidate for candidate in asked if candidate.fits(shape.bytes)]
    if len(fitting) < shape.device_count:
        raise refusal(asked, shape)
    spread = request.placement is Placement.SPREAD
    fitting.sort(key=lambda each: each.room_bytes or 0, reverse=spread)
    if request.numa_node is not None:
        fitting.sort(key=lambda each: each.numa_node != request.numa_node)
    if numa_aware and not spread and shape.device_count > 1:
        fitting = _together(fitting, shape.device_count)
    return tuple(fitting[: shape.device_count])


def _together(fitting: list[Candidate], count: int) -> list[Candidate]:
    """The first node that has enough of them, or all as they are."""
    for node in dict.fromkeys(each.numa_node for each in fitting):
        here = [each for each in fitting if each.numa_node == node]
        if node is not None and len(here) >= count:
            return here
    return fitting


def refusal(asked: list[Candidate], shape: Shape) -> GpudError:
    """The error that says why, with every device's numbers."""
    shortages = tuple(candidate.shortage() for candidate in asked)
    possible = [candidate for candidate in asked if candidate.could_ever_fit(shape.bytes)]
    never = len(possible) < shape.device_count
    if asked and not never and all(candidate.rule for candidate in asked):
        left = sum(not candidate.for_good for candidate in possible)
        return DeviceUnavailable(shortages=shortages, never_fits=left < shape.device_count)
    return VramInsufficient(
        needed_bytes=shape.bytes,
        device_count=shape.device_count,
        shortages=shortages,
        never_fits=never,
    )
