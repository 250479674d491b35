"""Pure: whether an instance's bytes are on the device that it was promised, or it runs on the CPU.

Engines that find no usable card go on without one: they answer, slowly, and their promise lies
idle. Simulated cards take no bytes of engines, so nothing is said of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.ledger.charge import Charge
from gpud.models.model import Footprint, FootprintWhat
from gpud.units import MIB, format_size

# What an engine puts on its device before it serves; the rest may come with the first requests.
_LASTING = (FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE)
# A driver's page or two is no model: below this nothing can be told.
MIN_EXPECTED_BYTES = 64 * MIB
# An estimate is right within a few percent, and a fallback leaves nearly nothing.
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An instance as promised: `ready_boottime` is when it began to serve."""

    reservation: str
    footprint: Footprint
    ready_boottime: float


def works_alone(reservation: str, sample: Sample, least_percent: float) -> bool:
    """Whether a device was working, and nobody but the instance of that promise is on it."""
    percent, processes = sample.readings.utilization_percent, sample.processes
    if sample.info.kind is DeviceKind.HOST or percent is None or percent < least_percent:
        return False
    return bool(processes) and all(each.claim == reservation for each in processes or ())


def fallback(placed: Placed, sample: Sample, charge: Charge | None) -> str:
    """Why one device says that it runs on the CPU; empty where it does not, or does not tell.

    Bytes that no process explains may be its own: in a container the driver lists nobody.
    """
    if sample.info.kind not in {DeviceKind.GPU, DeviceKind.MIG} or charge is None:
        return ""
    listed = sample.listed_boottime
    if sample.processes is None or listed is None or listed < placed.ready_boottime:
        return ""
    expected = sum(item.bytes for item in placed.footprint.items if item.what in _LASTING)
    if expected < MIN_EXPECTED_BYTES or charge.unattributed_bytes is None:
        return ""
    own = charge.observed_bytes.get(placed.reservation, 0)
    if any(each.used_bytes is None for each in sample.processes):
        return ""
    if own + charge.unattributed_bytes >= expected * LEAST_SHARE:
        return ""
    found, wanted = format_size(own), format_size(expected)
    return f"it runs on the CPU: {found} of {wanted} are on {sample.info.alias}"
