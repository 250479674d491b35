"""The watch of one engine that serves: asked how it is, round after round; told; unloaded if idle.

Whether it lives is told at once by its tree; here it is asked for its counters, then, seldomer,
whether it is ready, and, when it is idle, for a single token.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

import structlog

from gpud.clock import Moment
from gpud.devices.snapshot import Sample
from gpud.engines.api_key import ApiKey
from gpud.engines.probe import ProbeFailed
from gpud.errors import GpudError, ModelFileInvalid
from gpud.instances.health import vital
from gpud.instances.health.healing import EngineStuck
from gpud.instances.health.placed import Placed, fallback, works_alone
from gpud.instances.health.vital import Signs, Verdict, Vital
from gpud.instances.instance import Use
from gpud.instances.life import Life, StopOrder
from gpud.instances.load import TAIL_LINES, Load
from gpud.instances.starting.handing import key_of
from gpud.instances.tree.output import since_mark, tail
from gpud.instances.tree.usage import cpu_seconds
from gpud.ledger.reservation import Deadline

log = structlog.get_logger()

# For a request that came between the last look and the stop: it may finish.
IDLE_GRACE_SECONDS = 60.0
_TOLD = {Verdict.STUCK: "instance.stuck", Verdict.DEGRADED: "instance.degraded"}


class Watch:
    """Of one engine, from READY until its end."""

    def __init__(self, life: Life, load: Load) -> None:
        self._life = life
        self._house = life.house
        self._load = load
        self._engine = life.house.engines[life.instance.engine]
        self._vital = _begun(life, self._house.clock.now())
        self._noted: tuple[float, float] | None = None
        self._noted_at = 0.0
        self._key: ApiKey | None = None

    async def run(self) -> NoReturn:
        """Round after round, for as long as it lives. Raises EngineStuck."""
        life = self._life
        with suppress(ModelFileInvalid):  # without it its counters are not told; its health is
            self._key = await key_of(life)
        while True:
            try:
                await self._look()
            except GpudError:
                raise
            except Exception:
                # A reading that nobody can make sense of must not end an engine that serves.
                log.exception("watch.bug", instance=life.instance.name)
            await self._house.clock.sleep(float(self._house.health.watch))

    async def _look(self) -> None:
        """One round. Raises EngineStuck."""
        self._life.oom_kills = self._house.kernel.oom_kills(self._life.instance.id)
        now = await self._feel()
        if vital.wants_probe(self._vital, self._house.health, now) and self._may_probe():
            with self._house.quiet.asking(self._life.instance.id):
                now = await self._probe(now)
        self._look_at_devices()
        self._tell()
        self._note_use(now)
        self._unload_if_idle(now)

    async def _feel(self) -> float:
        """Its counters, and whether it is ready where it is time for that; the moment after."""
        endpoint, limits = self._life.instance.endpoint, self._house.health
        pulse = await self._engine.pulse(endpoint, self._key)
        now = self._now()
        self._vital = vital.felt(self._vital, pulse, now)
        if self._life.tree is not None:
            taken = cpu_seconds(self._life.tree.identity)
            self._vital = vital.ran(self._vital, taken, limits, now)
        if vital.wants_readiness(self._vital, limits, now):
            readiness = await self._engine.readiness(endpoint)
            self._vital = vital.asked(self._vital, readiness, self._now())
        return now

    def _may_probe(self) -> bool:
        """One that lets its weights go when idle would never come to that.

        Nor is anybody asked whose device is being measured: the token would be measured too.
        """
        instance = self._life.instance
        is_held = self._house.quiet.is_held(instance.devices)
        return not instance.options.sleep_idle_seconds and not is_held

    async def _probe(self, now: float) -> float:
        """Ask for a token, then for its counters, so that it is not taken for a request.

        The moment of the newest counters.
        """
        instance = self._life.instance
        passed = True
        try:
            model = await self._load.model()
            await self._engine.probe(instance.endpoint, model, instance.options, self._key)
        except ProbeFailed as failed:
            passed = False
            log.warning("instance.probe_failed", instance=instance.name, problem=str(failed))
        except GpudError:
            # It left the catalogue, or its file cannot be read: how to ask it is not known.
            self._vital = vital.unprobed(self._vital, now)
            return now
        pulse = await self._engine.pulse(instance.endpoint, self._key)
        now = self._now()
        self._vital = vital.probed(self._vital, pulse, now, passed=passed)
        return now

    def _look_at_devices(self) -> None:
        """Its bytes are where they were promised, as its devices' newest lists tell."""
        instance, ready = self._life.instance, self._life.instance.healing.ready
        if instance.footprint is None or ready is None:
            return
        placed = Placed(
            reservation=instance.reservation or "",
            footprint=instance.footprint,
            ready_boottime=ready.boottime,
        )
        charges = self._house.promises.ledger.charges_of(
            instance.devices, self._house.promises.durable
        )
        found = (
            fallback(placed, sample, charges.get(sample.info.uuid)) for sample in self._samples()
        )
        self._vital = vital.placed(self._vital, next(filter(None, found), ""))
        for sample in self._samples():
            if works_alone(placed.reservation, sample, vital.WORK_PERCENT):
                self._vital = vital.computed(self._vital, sample.boottime)

    def _samples(self) -> tuple[Sample, ...]:
        snapshot = self._house.snapshots.latest
        samples = snapshot.samples if snapshot is not None else ()
        return tuple(each for each in samples if each.info.uuid in self._life.instance.devices)

    def _tell(self) -> None:
        """Told outside; a change of the verdict wakes who watches. Raises EngineStuck."""
        life, before = self._life, self._life.signs
        signs = self._signs(self._house.clock.now())
        life.signs = signs
        if before is None or before.verdict is not signs.verdict:
            self._tell_change(before, signs)
        if signs.verdict is Verdict.STUCK:
            raise EngineStuck(
                instance=life.instance.name,
                phase=life.phase.name,
                output_tail=since_mark(tail(life.folder, TAIL_LINES)),
                problem=signs.reason,
            )

    def _tell_change(self, before: Signs | None, signs: Signs) -> None:
        life = self._life
        name = _TOLD.get(signs.verdict, "")
        if not name and before is not None and before.verdict in _TOLD:
            name = "instance.recovered"
        if name:
            log.warning(name, instance=life.instance.name, reason=signs.reason)
            life.note(life.event(name, signs.reason))
        else:
            life.show()

    def _signs(self, now: Moment) -> Signs:
        seen, instance = self._vital, self._life.instance
        verdict, reason = vital.judge(seen, self._house.health, now.boottime)
        deadline = vital.idle_deadline(seen, instance.idle_ttl_seconds, pinned=instance.pinned)
        to_wall = now.wall - now.boottime
        pulse = seen.pulse
        return Signs(
            verdict=verdict,
            reason=reason,
            ready=seen.unready is None,
            busy=None if seen.in_flight is None else seen.in_flight > 0,
            running=pulse.running if pulse is not None else None,
            waiting=pulse.waiting if pulse is not None else None,
            kv_used_fraction=pulse.kv_used_fraction if pulse is not None else None,
            tokens_per_second=seen.tokens_per_second,
            last_progress_wall=None if seen.worked is None else seen.worked + to_wall,
            idle_deadline_wall=None if deadline is None else deadline + to_wall,
            counters=pulse.counters if pulse is not None else None,
            counted_boottime=seen.pulsed,
        )

    def _unload_if_idle(self, now: float) -> None:
        """An ordinary stop, by gpud itself, once nobody has used it for its time."""
        instance = self._life.instance
        ttl, pinned = instance.idle_ttl_seconds, instance.pinned
        if ttl is None or self._life.order is not None:
            return
        if vital.is_idle_too_long(self._vital, ttl, now, pinned=pinned):
            reason = f"nobody has used it for {ttl:g} s, its idle_ttl"
            order = StopOrder(
                actor="gpud", grace_seconds=IDLE_GRACE_SECONDS, force=False, reason=reason
            )
            self._life.stop_with(order)

    def _note_use(self, now: float) -> None:
        """Write down when it was last used, seldom: a restart of the daemon is no use of it."""
        instance, seen = self._life.instance, self._vital
        if instance.idle_ttl_seconds is None or instance.pinned or self._life.order is not None:
            return
        if not vital.wants_noting(seen, self._noted, self._noted_at, now):
            return
        progress = seen.pulse.progress if seen.pulse is not None else None
        assert progress is not None  # noqa: S101 — it would not be wanted
        self._noted, self._noted_at = (seen.used, progress), now
        moment = Deadline.after(self._house.clock.now(), seen.used - self._now())
        self._life.note(use=Use(moment=moment, progress=progress))

    def _now(self) -> float:
        return self._house.clock.now().boottime


def _begun(life: Life, now: Moment) -> Vital:
    """As an earlier life of the daemon left it, where the engine is the one it knew."""
    use, ready = life.instance.use, life.instance.healing.ready
    if use is None or ready is None or use.moment.boot_id != now.boot_id:
        return vital.begun(now.boottime)
    if use.moment.boottime < ready.boottime:
        return vital.begun(now.boottime)
    return vital.found(now.boottime, use.moment.boottime, use.progress)
