"""Pure: sizes and spans as people write and read them; everywhere else bytes and seconds."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

UNKNOWN = "-"

_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": TIB, "tib": TIB, "tb": 1000**4,
}  # fmt: skip
_SPAN_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Compiled when first used: most commands parse neither.
_NUMBER_AND_UNIT = r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)"
_SPAN_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"

# The widest the wire can carry: int64 bytes, and google.protobuf.Duration's 10 000 years.
MAX_BYTES = 2**63 - 1
MAX_SPAN_SECONDS = 315_576_000_000.0


def parse_size(text: str) -> int:
    """Bytes of `8GiB`, `8G` (both 8·2³⁰), `8GB` (8·10⁹) or `512`.

    Raises ValueError with what would be accepted.
    """
    match = re.fullmatch(_NUMBER_AND_UNIT, text.strip())
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write for example 8GiB, 512MiB or 1073741824")
    size = int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
    if size > MAX_BYTES:
        raise ValueError(f"{text!r} is more bytes than can be asked for")
    return size


def parse_span(text: str) -> float:
    """Seconds of `1s`, `250ms`, `5m`, `1h30m`. Raises ValueError with what would be accepted."""
    stripped = text.strip()
    parts = re.findall(_SPAN_PART, stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} is not a span of time; write for example 30s, 250ms or 5m")
    seconds = sum(float(number) * _SPAN_UNITS[unit] for number, unit in parts)
    if seconds > MAX_SPAN_SECONDS:
        raise ValueError(f"{text!r} is longer than can be asked for")
    return seconds


def size_text(count: int | None) -> str:
    """`5.25 GiB`, `512 MiB`, `17 B`: for sentences. None is unknown."""
    if count is None:
        return UNKNOWN
    for factor, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(count) >= factor:
            return f"{_trimmed(count / factor, 2)} {unit}"
    return f"{count} B"


def compact_size(count: int | None) -> str:
    """`5.25G`, `512M`, `0`: for columns, at most three digits that matter. None is unknown."""
    if count is None:
        return UNKNOWN
    for factor, unit in ((TIB, "T"), (GIB, "G"), (MIB, "M"), (KIB, "K")):
        if abs(count) >= factor:
            return f"{_three_digits(count / factor)}{unit}"
    return f"{count}B" if count else "0"


def used_of(used: int | None, total: int | None) -> str:
    """`0.52/6G`: both in the unit that suits the total."""
    if used is None or not total:
        return f"{compact_size(used)}/{compact_size(total)}"
    factor = next(f for f in (TIB, GIB, MIB, KIB, 1) if total >= f)
    return f"{_three_digits(used / factor)}/{compact_size(total)}"


def span_text(seconds: float | None) -> str:
    """`0.27ms`, `250ms`, `1.2s`, `5m12s`, `4d3h`: the two units that matter. None is unknown."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0:
        return f"-{span_text(-seconds)}"
    if 0 < seconds < 0.00095:
        return f"{_trimmed(seconds * 1000, 2)}ms"
    if 0 < seconds < 0.9995:
        return f"{round(seconds * 1000)}ms"
    if seconds < 9.95:
        return f"{_trimmed(seconds, 1)}s"
    whole = round(seconds)
    for factor, unit, below, lower in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= factor:
            rest = whole % factor // below
            return f"{whole // factor}{unit}" + (f"{rest}{lower}" if rest else "")
    return f"{whole}s"


def _three_digits(value: float) -> str:
    return _trimmed(value, 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0)


def _trimmed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
