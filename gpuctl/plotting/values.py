"""Pure: a reading of history as people read it, by its unit."""

from __future__ import annotations

from gpuctl.units import UNKNOWN, compact_size, span_text

_SHORT = {"percent": "%", "celsius": "°C", "watts": "W", "MHz": "MHz"}


def value_text(value: float | None, unit: str) -> str:
    """`4.5G`, `62°C`, `250ms`, `33%`, `1200`: at most four digits that matter. None is unknown."""
    if value is None:
        return UNKNOWN
    if unit.startswith("bytes"):
        return compact_size(round(value)) + unit.removeprefix("bytes")
    if unit == "seconds":
        return span_text(value)
    return f"{_number(value)}{_SHORT.get(unit, '')}"


def _number(value: float) -> str:
    if value and abs(value) < 0.995:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    decimals = 1 if abs(value) < 99.95 else 0
    text = f"{value:.{decimals}f}"
    return text.removesuffix(".0")
