"""Pure: the page at /metrics: everything of one moment, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpud.access.auditing.calls import MethodCalls
from gpud.clock import Moment
from gpud.devices.snapshot import Snapshot
from gpud.instances.instance import Instance
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.page.calls import CallsPart
from gpud.telemetry.page.cards import Cards, devices_now
from gpud.telemetry.page.devices import Devices, Promised
from gpud.telemetry.page.engines import Engines
from gpud.telemetry.page.host import Host
from gpud.telemetry.page.node import Node, NodePart
from gpud.telemetry.page.promises import Promises


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What there is to tell of one moment. `access` are lines that are ready."""

    now: Moment
    snapshot: Snapshot | None
    promised: Promised
    instances: Sequence[Instance]
    readings: Mapping[str, EngineReading]  # by instance id
    service_label: str
    calls: Sequence[MethodCalls]
    node: Node
    access: str


class NativePage:
    """Its parts, each with the templates that it filled in last."""

    def __init__(self, commit_bounds: tuple[float, ...]) -> None:
        """`commit_bounds` are those of Node.commit_seconds."""
        self._cards, self._devices, self._host = Cards(), Devices(), Host()
        self._promises, self._engines = Promises(), Engines()
        self._calls, self._node = CallsPart(), NodePart(commit_bounds)

    def render(self, sight: Sight) -> str:
        """The whole page; of devices nothing before the first snapshot."""
        parts = [self._node.render(sight.node)]
        if sight.snapshot is not None:
            now = sight.now.boottime
            samples = devices_now(sight.snapshot.samples, now)
            parts += (
                self._devices.render(samples, sight.promised, sight.now.boottime),
                self._cards.render(samples),
                self._host.render(sight.snapshot.host),
            )
        parts += (
            self._promises.render(sight.promised.books, sight.now),
            self._engines.render(sight.instances, sight.readings, sight.service_label),
            self._calls.render(sight.calls),
            sight.access,
        )
        return "".join(parts)
