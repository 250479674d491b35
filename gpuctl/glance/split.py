"""Pure: where a device's bytes are, as the parts of a bar."""

from __future__ import annotations

import enum
from typing import Final

from gpuctl.glance.words import is_healthy
from gpuctl.messages import known
from gpud.v1.devices_pb2 import Device


class Part(enum.Enum):
    """What a stretch of the bar is: its name, its mark, and the mark where there is only ASCII.

    Each has a mark of its own, so that the bar reads without colour.
    """

    OWN = ("in use inside a promise", "█", "#")
    PROMISED = ("promised, not in use", "▒", "=")
    FOREIGN = ("in use outside any promise", "▓", "%")
    LEAKED = ("leaked", "▚", "!")
    FREE = ("free", "·", ".")
    UNKNOWN = ("unknown", "?", "?")

    def __init__(self, says: str, mark: str, plain: str) -> None:
        self.says = says
        self.mark = mark
        self.plain = plain


Bar = tuple[tuple[Part, int], ...]
# Of the total: what is less is no character of its own.
_LEAST_SHOWN: Final = 0.01


def device_bar(device: Device, width: int) -> Bar:
    """Each part with its characters, `width` in all; one unknown part where it tells nothing."""
    total = known(device, "memory_total_bytes")
    used = known(device.sample, "memory_used_bytes")
    if not total or used is None or not is_healthy(device):
        return ((Part.UNKNOWN, width),)
    leaked = device.leaked_bytes
    foreign = device.foreign_bytes + device.unattributed_bytes
    own = max(0, used - foreign - leaked)
    sizes = {
        Part.OWN: own,
        Part.PROMISED: max(0, device.granted_bytes - own),
        Part.FOREIGN: foreign,
        Part.LEAKED: leaked,
    }
    return _cells(sizes, total, width)


def _cells(sizes: dict[Part, int], total: int, width: int) -> Bar:
    """Rounded as sums, so that no part moves another; a part worth showing has one at least."""
    told: list[tuple[Part, int]] = []
    at, end = 0.0, 0
    for part, size in sizes.items():
        at += size
        least = end + (size >= total * _LEAST_SHOWN)
        until = min(width, max(least, round(at / total * width)))
        if until > end:
            told.append((part, until - end))
            end = until
    if end < width:
        told.append((Part.FREE, width - end))
    return tuple(told)


def bar_text(bar: Bar, *, plain: bool = False) -> str:
    """Its marks alone; `plain`: in ASCII."""
    return "".join((part.plain if plain else part.mark) * count for part, count in bar)
