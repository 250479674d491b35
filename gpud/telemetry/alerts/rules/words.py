"""Pure: numbers with their units, as people read them."""

from __future__ import annotations

from gpud.units import format_size

_UNITS = {
    "percent": " %",
    "celsius": " °C",
    "watts": " W",
    "seconds": " s",
    "days": " days",
    "bytes/s": " bytes/s",
    "tokens/s": " tokens/s",
    "1/s": "/s",
}


def number(value: float, unit: str) -> str:
    """`93.4 %`, `2.5 GiB`, `17`."""
    if unit == "bytes":
        return format_size(int(value))
    shown = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{shown}{_UNITS.get(unit, '')}"


def span(seconds: float) -> str:
    """`45 s`, `5 min`, `2 h`, `3 d`."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
