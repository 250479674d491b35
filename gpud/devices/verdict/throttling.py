"""Pure: why a card's clocks are held down, by the names that Readings.throttle_reasons has."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

# The bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h), the lowest first.
_BITS = (
    "idle",
    "application_clocks",
    "power_cap",
    "hardware_slowdown",
    "sync_boost",
    "thermal",
    "hardware_thermal",
    "power_brake",
    "display_clocks",
    "board_limit",
    "reliability",
)
NAMES = frozenset(_BITS)
# What takes speed from whoever computes; the others are wished, or follow from idling.
_SLOWING = frozenset(
    {
        "power_cap",
        "hardware_slowdown",
        "thermal",
        "hardware_thermal",
        "power_brake",
        "board_limit",
        "reliability",
    }
)


@lru_cache(maxsize=64)
def reasons_of(bits: int) -> tuple[str, ...]:
    """The names of the bits that are set; those that came after this was written are left out."""
    return tuple(name for at, name in enumerate(_BITS) if bits >> at & 1)


def is_throttled(reasons: Collection[str] | None) -> bool | None:
    """Whether power, heat or the board holds the clocks down; None: the driver does not tell."""
    return None if reasons is None else not _SLOWING.isdisjoint(reasons)


def is_by_heat(reasons: Collection[str] | None) -> bool:
    """Whether heat does; what is not told is no heat.

    Cards before Volta tell all of the hardware's own slowdowns as one: heat, unless the power
    brake is named beside it.
    """
    if reasons is None:
        return False
    hardware = "hardware_slowdown" in reasons and "power_brake" not in reasons
    return hardware or "thermal" in reasons or "hardware_thermal" in reasons
