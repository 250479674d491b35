"""The counters of every engine that serves, read round after round.

The watch of each engine (instances/health/watch.py) looks at its counters too; what it has seen
since the last round is taken, so that an engine is asked twice only for what is newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gpud.benchmarking.benchmarks import Benchmarks
from gpud.clock import Moment
from gpud.engines.api_key import ApiKey
from gpud.errors import GpudError, ModelNotFound
from gpud.feed import Feed
from gpud.instances.health.vital import Signs, Verdict
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.instances.starting.handing import key_for
from gpud.settings import EngineMetrics as Settings
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.engines.reckoning import Known, newest_of, reading, unread
from gpud.telemetry.engines.series import Point, Points, added
from gpud.telemetry.engines.services import services_of

log = structlog.get_logger()

# Engines that are asked at once; each answers within the limit of its own kind, or is left.
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What every engine that serves showed, by a round that ended then."""

    wall: float
    readings: tuple[EngineReading, ...]


@dataclass(slots=True, kw_only=True)
class _Followed:
    """One engine's process, from its first round on."""

    process: tuple[int | None, int]
    points: Points = ()
    reading: EngineReading | None = None
    key: ApiKey | None = None
    has_key: bool = False  # it was looked for


class EngineMetrics:
    """Reads, and tells what was read last. Belongs to the loop.

    `newest` is by instance id, of engines that are READY. An engine on a device that is being
    measured is not asked beside its watch, and none that sleeps is woken.
    """

    def __init__(
        self, settings: Settings, house: House, roster: Roster, benchmarks: Benchmarks
    ) -> None:
        self.label = settings.service_label
        self.newest: Mapping[str, EngineReading] = {}
        self.rounds: Feed[Round] = Feed()
        self._interval = float(settings.interval)
        self._house = house
        self._roster = roster
        self._benchmarks = benchmarks
        self._followed: dict[str, _Followed] = {}

    async def run(self) -> None:
        """Round after round, until cancelled; an interval of 0 means that none is wanted."""
        while self._interval > 0:
            await self.look()
            await self._house.clock.about(self._interval)

    async def look(self) -> None:
        """One round; it takes as long as the slowest answer may."""
        serving = [each for each in self._roster.list() if each.state is InstanceState.READY]
        if not serving and not self._followed:
            return  # nor were there any in the round before, which told so
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for instance in serving:
                tasks.create_task(self._look_at(instance, gate))
        self._followed = {
            each.id: self._followed[each.id] for each in serving if each.id in self._followed
        }
        readings = {id_: each.reading for id_, each in self._followed.items() if each.reading}
        self.newest = readings
        wall = self._house.clock.now().wall
        self.rounds.publish(Round(wall=wall, readings=tuple(readings.values())))

    async def _look_at(self, instance: Instance, gate: asyncio.Semaphore) -> None:
        process = (instance.pid, instance.restarts)
        followed = self._followed.get(instance.id)
        if followed is None or followed.process != process:
            followed = self._followed[instance.id] = _Followed(process=process)
        async with gate:
            try:
                await self._read(instance, followed)
            except Exception:
                # What one engine told must not keep the others from being read.
                log.exception("engine_metrics.bug", instance=instance.name)

    async def _read(self, instance: Instance, followed: _Followed) -> None:
        signs = self._roster.signs(instance.id)
        known = self._known(instance, signs)
        heard = _heard(signs, followed.points)
        if heard is None and not self._house.quiet.is_held(instance.devices):
            try:
                heard = await self._asked(instance, followed)
            except GpudError as error:
                followed.reading = self._silent(known, followed, str(error))
                return
        now = self._house.clock.now()
        if heard is None:
            followed.reading = self._unheard(known, followed)
            return
        followed.points = added(followed.points, heard, self._interval)
        followed.reading = reading(followed.points, known, _wall(heard, now))

    async def _asked(self, instance: Instance, followed: _Followed) -> Point | None:
        """What it counts now; None: it is told to have no counters. Raises GpudError."""
        if not followed.has_key:
            followed.key, followed.has_key = await key_for(instance), True
        engine = self._house.engines[instance.engine]
        counters = await engine.counters(instance.endpoint, followed.key)
        if counters is None:
            return None
        return Point(boottime=self._house.clock.now().boottime, counters=counters)

    def _silent(self, known: Known, followed: _Followed, problem: str) -> EngineReading:
        """What was read before, and why nothing newer was. Its key may be another by now."""
        followed.has_key = False
        if followed.reading is not None:
            return replace(followed.reading, problem=problem, sleeping=known.sleeping)
        now = self._house.clock.now()
        return unread(known, now.boottime, now.wall, problem)

    def _unheard(self, known: Known, followed: _Followed) -> EngineReading:
        """It is left in peace, or tells nothing, and that is as it should be."""
        now = self._house.clock.now()
        if followed.points and followed.reading is not None:
            return followed.reading
        return unread(known, now.boottime, now.wall, "")

    def _known(self, instance: Instance, signs: Signs | None) -> Known:
        house = self._house
        books = house.promises.durable.reservations
        ids = (instance.reservation, instance.terms.within)
        held = [books[id_] for id_ in ids if id_ is not None and id_ in books]
        try:
            model = house.catalogue.get(instance.model)
        except ModelNotFound:  # it has left the configuration, and serves on
            model = None
        is_asleep = signs is not None and signs.verdict is Verdict.SLEEPING
        return Known(
            instance=instance,
            services=services_of(model, held, self.label),
            sleeping=is_asleep or instance.sleep is not None,
            measured=newest_of(instance, self._benchmarks.kept(instance.model)),
        )


def _heard(signs: Signs | None, points: Sequence[Point]) -> Point | None:
    """What its watch saw since; None: nothing newer."""
    if signs is None or signs.counters is None or signs.counted_boottime is None:
        return None
    if points and signs.counted_boottime <= points[-1].boottime:
        return None
    return Point(boottime=signs.counted_boottime, counters=signs.counters)


def _wall(heard: Point, now: Moment) -> float:
    return now.wall - (now.boottime - heard.boottime)
