"""Pure: what devices showed a while ago, for the small lines beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from gpuctl.glance.words import reading_now
from gpuctl.messages import known, seconds_of
from gpuctl.plotting.grid import cells, filled
from gpud.v1.devices_pb2 import Device, DeviceKind
from gpud.v1.history_pb2 import Series
from gpud.v1.telemetry_pb2 import HostReadings, Snapshot

SPAN_SECONDS: Final = 300.0
# What of history says the same of the time before anybody looked.
SEEDS: Final = ("utilization_percent", "cpu_percent")
# As history calls the host beside its devices.
_HOST: Final = "host"
_MOST_POINTS: Final = 600
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
# Percent, and every step of a block.
_FULL: Final = 100.0


class Past:
    """Of each device how busy it was, in percent; of the host, its CPUs."""

    def __init__(self) -> None:
        self._points: dict[str, deque[tuple[float, float, int]]] = {}
        self._step = 1.0

    def seed(self, series: Iterable[Series], step: float) -> None:
        """What gpud kept of SEEDS; `step` of how many seconds each."""
        self._step = max(self._step, step)
        for each in series:
            if each.points:
                points = [(seconds_of(p.time), p.mean, 1) for p in each.points]
                self._points[each.subject] = deque(points, maxlen=_MOST_POINTS)

    def see(self, snapshot: Snapshot, interval: float) -> None:
        """What they show now; `interval`: seconds until the next one comes."""
        self._step = max(self._step, interval)
        now = seconds_of(snapshot.time)
        for device in snapshot.devices:
            value = busy_percent(device, snapshot.host)
            if value is not None:
                kept = self._points.setdefault(_subject(device), deque(maxlen=_MOST_POINTS))
                if not kept or kept[-1][0] < now:
                    kept.append((now, value, 1))

    def line(self, device: Device, now: float, width: int) -> str:
        """The last minutes, from 0 to 100 %; blank where nothing was seen."""
        points = tuple(self._points.get(_subject(device), ()))
        values = cells(points, now - SPAN_SECONDS, now, width)
        longest = int(self._step / (SPAN_SECONDS / width)) + 1
        return "".join(map(_mark, filled(values, longest)))


def _subject(device: Device) -> str:
    """Whose history is drawn beside it."""
    return _HOST if device.kind == DeviceKind.DEVICE_KIND_HOST else device.name


def busy_percent(device: Device, host: HostReadings) -> float | None:
    """Utilization; of the host that of its CPUs. None where it does not tell."""
    if device.kind == DeviceKind.DEVICE_KIND_HOST:
        of_cpus: float | None = known(host, "cpu_percent")
        return of_cpus
    busy: float | None = reading_now(device, "utilization_percent")
    return busy


def full_percent(device: Device) -> float | None:
    """Memory in use, of all."""
    used, total = reading_now(device, "memory_used_bytes"), known(device, "memory_total_bytes")
    return None if used is None or not total else _FULL * used / total


def _mark(value: float | None) -> str:
    if value is None:
        return " "
    return _BLOCKS[max(0, min(len(_BLOCKS) - 1, int(value / _FULL * len(_BLOCKS))))]
