"""Pure: bytes and spans as people write them. Inside gpud they are int bytes and float seconds."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": 1024 * GIB, "tib": 1024 * GIB, "tb": 1000**4,
}  # fmt: skip
_SPAN_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SPAN_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """Bytes of `8GiB`, `8G` (both 8·2³⁰), `8GB` (8·10⁹) or `512`.

    Raises ValueError with what would be accepted.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write for example 8GiB, 512MiB or 1073741824")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def parse_span(text: str) -> float:
    """Seconds of `1s`, `250ms`, `5m`, `1h30m`. Raises ValueError with what would be accepted."""
    stripped = text.strip()
    parts = _SPAN_PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} is not a span of time; write for example 30s, 250ms or 5m")
    return sum(float(number) * _SPAN_UNITS[unit] for number, unit in parts)


def format_span(seconds: float) -> str:
    """`1m`, `1h30m`, `7d`, `0.25s`: to the nanosecond, and as parse_span reads it."""
    text, left = ("-" if seconds < 0 else ""), round(abs(seconds), 9)
    for unit in "dhm":
        count, left = divmod(left, _SPAN_UNITS[unit])
        text += f"{count:.0f}{unit}" if count else ""
    rest = f"{left:.9f}".rstrip("0").rstrip(".")
    return f"{text}{rest}s" if rest != "0" or not text.lstrip("-") else text


def format_size(count: int) -> str:
    """`5.25 GiB`, `512 MiB`, `17 B`: for messages that people read."""
    sign, size = ("−" if count < 0 else ""), abs(count)
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= factor:
            return f"{sign}{size / factor:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{sign}{size} B"
