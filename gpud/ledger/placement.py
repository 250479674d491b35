"""Pure: which devices carry a request, or why none can."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.devices.snapshot import DeviceKind
from gpud.errors import DeviceShortage, DeviceUnavailable, GpudError, VramInsufficient
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import ReserveRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device that a request may be placed on, and the rule that refuses it, if any."""

    charge: Charge
    kind: DeviceKind
    rule: str = ""

    def fits(self, size: int) -> bool:
        """Whether it can carry so many bytes now."""
        grantable = self.charge.grantable_bytes
        return not self.rule and grantable is not None and size <= grantable

    def could_ever_fit(self, size: int) -> bool:
        """Whether it could, if nothing else were on it."""
        total = self.charge.total_bytes
        return total is not None and size <= total - self.charge.reserve_bytes

    def shortage(self) -> DeviceShortage:
        """The terms, for the refusal."""
        c = self.charge
        return DeviceShortage(
            device=f"devices/{c.uuid}",
            alias=c.alias,
            grantable_bytes=c.grantable_bytes,
            total_bytes=c.total_bytes,
            reserve_bytes=c.reserve_bytes,
            # What is charged, over-use included: the terms must add up.
            granted_bytes=c.charged_bytes,
            foreign_bytes=c.foreign_bytes or 0,
            unattributed_bytes=c.unattributed_bytes or 0,
            leaked_bytes=c.leaked_bytes,
            rule=self.rule,
        )


def eligible(candidate: Candidate, request: ReserveRequest) -> bool:
    """Whether the request may be placed there at all: the host only when it is asked for."""
    if request.devices:
        return candidate.charge.uuid in request.devices
    if request.device_kind is not None:
        return candidate.kind is request.device_kind
    return candidate.kind is not DeviceKind.HOST


def place(candidates: list[Candidate], request: ReserveRequest) -> tuple[str, ...]:
    """UUIDs of `device_count` devices, best fit first: the fullest that still carry the bytes.

    So that a later, larger request finds a whole device. Ties go by the candidates' order.
    Raises VramInsufficient or DeviceUnavailable.
    """
    asked = [candidate for candidate in candidates if eligible(candidate, request)]
    fitting = [candidate for candidate in asked if candidate.fits(request.bytes)]
    if len(fitting) < request.device_count:
        raise refusal(asked, request)
    fitting.sort(key=lambda candidate: candidate.charge.grantable_bytes or 0)
    return tuple(candidate.charge.uuid for candidate in fitting[: request.device_count])


def refusal(asked: list[Candidate], request: ReserveRequest) -> GpudError:
    """The error that says why, with every device's numbers."""
    shortages = tuple(candidate.shortage() for candidate in asked)
    if asked and all(candidate.rule for candidate in asked):
        return DeviceUnavailable(shortages=shortages)
    possible = sum(candidate.could_ever_fit(request.bytes) for candidate in asked)
    return VramInsufficient(
        needed_bytes=request.bytes,
        device_count=request.device_count,
        shortages=shortages,
        never_fits=possible < request.device_count,
    )
