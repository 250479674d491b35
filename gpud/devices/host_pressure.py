"""Pure: when the host counts as having come under memory pressure, from what it shows each tick.

Three signs are watched, each by itself. A squeeze counts once however long it lasts: a sign has to
have left before it can count again.
"""

from __future__ import annotations

from collections import deque

from gpud.devices.snapshot import HostReadings, Snapshot, Squeeze
from gpud.events import Event
from gpud.units import MIB, format_size

# Share of the last 10 s in which some task waited for memory (PSI, some avg10): the kernel's own
# measure. At a tenth people notice; below the half of that it has passed.
STALL_PERCENT = 10.0
STALL_PASSED_PERCENT = 5.0
# Swap that grows by so much within so long is being used for want of memory; idle pages that
# drift out are slower.
SWAP_GROWTH_BYTES = 64 * MIB
SWAP_WINDOW_SECONDS = 10.0
# A cgroup at its limit counts up with every page that it may not have.
CGROUP_QUIET_SECONDS = 60.0


class HostPressure:
    """Counts squeezes over the life of the daemon; handed every tick's readings, in order."""

    def __init__(self) -> None:
        self.count = 0
        self._stalled = False
        self._swap: deque[tuple[float, int]] = deque()  # (boottime, bytes used) of the window
        self._swapping = False
        self._counters: dict[str, int] = {}
        self._grown: dict[str, float] = {}  # when each counter last grew

    def observe(self, readings: HostReadings, boottime: float) -> tuple[Squeeze, ...]:
        """The squeezes that began with these readings; `boottime` is when they were read."""
        begun = [
            *self._watch_stall(readings),
            *self._watch_swap(readings.swap_used_bytes, boottime),
            *self._watch_cgroup(readings, boottime),
        ]
        self.count += len(begun)
        return tuple(begun)

    def _watch_stall(self, readings: HostReadings) -> list[Squeeze]:
        some = readings.memory_some_percent
        if some is None:
            return []
        was, self._stalled = (
            self._stalled,
            some >= STALL_PERCENT or (self._stalled and some >= STALL_PASSED_PERCENT),
        )
        if was or not self._stalled:
            return []
        facts = {"some_percent": f"{some:g}"}
        if readings.memory_full_percent is not None:
            facts["full_percent"] = f"{readings.memory_full_percent:g}"
        words = f"tasks waited for memory in {some:g} % of the last 10 s"
        return [Squeeze(source="psi", words=words, facts=facts)]

    def _watch_swap(self, used_bytes: int | None, boottime: float) -> list[Squeeze]:
        if used_bytes is None:
            return []
        while self._swap and self._swap[0][0] < boottime - SWAP_WINDOW_SECONDS:
            self._swap.popleft()
        grown = used_bytes - min((used for _, used in self._swap), default=used_bytes)
        self._swap.append((boottime, used_bytes))
        was, self._swapping = (
            self._swapping,
            grown > SWAP_GROWTH_BYTES or (self._swapping and grown > SWAP_GROWTH_BYTES // 4),
        )
        if was or not self._swapping:
            return []
        words = f"swap in use grew by {format_size(grown)} within {SWAP_WINDOW_SECONDS:g} s"
        facts = {"grown_bytes": str(grown), "swap_used_bytes": str(used_bytes)}
        return [Squeeze(source="swap", words=words, facts=facts)]

    def _watch_cgroup(self, readings: HostReadings, boottime: float) -> list[Squeeze]:
        begun = []
        for name, value in (readings.memory_cgroup_events or {}).items():
            last = self._counters.get(name)
            self._counters[name] = value
            # What it had counted before gpud looked is nobody's news.
            if last is None or value <= last:
                continue
            quiet_since = self._grown.get(name)
            self._grown[name] = boottime
            if quiet_since is None or boottime - quiet_since >= CGROUP_QUIET_SECONDS:
                words = f"the memory cgroup of gpud counted {value - last} × {name}"
                facts = {"counter": name, "grown": str(value - last), "total": str(value)}
                begun.append(Squeeze(source="cgroup", words=words, facts=facts))
        return begun


def squeeze_events(snapshot: Snapshot) -> tuple[Event, ...]:
    """What the journal tells of the squeezes that began with a snapshot."""
    return tuple(
        Event(
            wall=snapshot.wall,
            type="node.memory_pressure",
            subject="node",
            reason=squeeze.words,
            details={"source": squeeze.source, **squeeze.facts},
        )
        for squeeze in snapshot.squeezes
    )
