"""Pure: what devices showed a while ago, for the small lines beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from gpuctl.glance.words import reading_now
from gpuctl.messages import known, seconds_of
from gpuctl.plotting.grid import cells, filled
from gpud.v1.devices_pb2 import Device
from gpud.v1.history_pb2 import Series
from gpud.v1.telemetry_pb2 import Snapshot

SPAN_SECONDS: Final = 300.0
_MOST_POINTS: Final = 600
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
# Percent, and every step of a block.
_FULL: Final = 100.0


class Past:
    """Of each device how busy it was, or where it does not tell, how full, in percent."""

    def __init__(self) -> None:
        self._points: dict[str, deque[tuple[float, float, int]]] = {}
        self._step = 1.0

    def seed(self, series: Iterable[Series], step: float) -> None:
        """What gpud kept of utilization from before; `step` of how many seconds each."""
        self._step = max(self._step, step)
        for each in series:
            if each.field == "utilization_percent" and each.points:
                points = [(seconds_of(p.time), p.mean, 1) for p in each.points]
                self._points[each.subject] = deque(points, maxlen=_MOST_POINTS)

    def see(self, snapshot: Snapshot, interval: float) -> None:
        """What they show now; `interval`: seconds until the next one comes."""
        self._step = max(self._step, interval)
        now = seconds_of(snapshot.time)
        for device in snapshot.devices:
            value = busy_percent(device)
            if value is not None:
                kept = self._points.setdefault(device.name, deque(maxlen=_MOST_POINTS))
                if not kept or kept[-1][0] < now:
                    kept.append((now, value, 1))

    def line(self, name: str, now: float, width: int) -> str:
        """The last minutes, from 0 to 100 %; blank where nothing was seen."""
        values = cells(tuple(self._points.get(name, ())), now - SPAN_SECONDS, now, width)
        longest = int(self._step / (SPAN_SECONDS / width)) + 1
        return "".join(map(_mark, filled(values, longest)))


def busy_percent(device: Device) -> float | None:
    """Utilization; memory in use where that is not told."""
    busy: float | None = reading_now(device, "utilization_percent")
    return full_percent(device) if busy is None else busy


def full_percent(device: Device) -> float | None:
    """Memory in use, of all."""
    used, total = reading_now(device, "memory_used_bytes"), known(device, "memory_total_bytes")
    return None if used is None or not total else _FULL * used / total


def _mark(value: float | None) -> str:
    if value is None:
        return " "
    return _BLOCKS[max(0, min(len(_BLOCKS) - 1, int(value / _FULL * len(_BLOCKS))))]
