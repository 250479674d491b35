"""What goes on around a benchmark: its engine's life, others that it serves, its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gpud.benchmarking.verdict import Scene, busy_before
from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Pulse
from gpud.errors import InstanceNotFound, ModelFileInvalid
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.instances.starting.handing import key_for

TICK_SECONDS: Final = 0.5
# A driver's utilization is of the last second or so: that of the warm-up may still show.
SETTLE_SECONDS: Final = 3.0
# So many looks in a row that count more requests than ours are others': one may be a request of
# ours that the engine has not put away yet.
_OTHERS_SEEN: Final = 2
# That the health watch asks for itself, one every 15 s at most and only of an idle engine.
_SPARE_TOKENS: Final = 8


@dataclass(slots=True, kw_only=True)
class Witness:
    """Watches one run of one instance; `scene` holds what makes it void."""

    house: House
    roster: Roster
    instance: Instance
    scene: Scene
    key: ApiKey | None
    concurrency: Callable[[], int]  # requests of ours at most, now
    served_others: bool | None = None
    _excess: int = 0
    _tokens_before: float | None = None
    _keys: dict[str, ApiKey | None] = field(default_factory=dict)

    async def begin(self) -> None:
        """The state of things before the first request that counts, with nothing of ours open."""
        pulse = await self._pulse(self.instance)
        self._tokens_before = pulse.tokens if pulse is not None else None
        if pulse is not None and pulse.running is not None:
            self.served_others = bool(pulse.running or pulse.waiting)
        if self.served_others is False:
            await self._look_before()
        self._see()

    async def watch(self) -> str:
        """Look until the engine is not the one that the run began with; why."""
        while True:
            await self.house.clock.sleep(TICK_SECONDS)
            lost = self._lost()
            if lost:
                return lost
            self._see()
            await self._see_others()
            await self._see_neighbours()

    async def end(self, output_tokens: int | None) -> None:
        """The state of things after the last; `output_tokens` were given to us since `begin`.

        None: not all of them were counted, for some requests failed.
        """
        self._see()
        pulse = await self._pulse(self.instance)
        if None in (self._tokens_before, output_tokens) or pulse is None or pulse.tokens is None:
            return
        given = pulse.tokens - (self._tokens_before or 0.0)
        if given > (output_tokens or 0) + _SPARE_TOKENS:
            self.served_others = True

    async def _look_before(self) -> None:
        """Whether its devices work for somebody else."""
        until = self._now() + SETTLE_SECONDS
        devices = self.instance.devices
        while busy := busy_before(self.house.snapshots.latest, devices):
            if self._now() >= until:
                self.scene.add("busy before", busy)
                return
            await self.house.clock.sleep(TICK_SECONDS)

    def _lost(self) -> str:
        try:
            now = self.roster.get(self.instance.id)
        except InstanceNotFound:
            return "the instance ended"
        if now.state is not InstanceState.READY:
            return f"the instance became {now.state.name}"
        if (now.pid, now.restarts) != (self.instance.pid, self.instance.restarts):
            return "the engine was started again"
        return ""

    def _see(self) -> None:
        promises = self.house.promises
        charges = promises.ledger.charges_of(self.instance.devices, promises.durable)
        self.scene.see(self.house.snapshots.latest, charges)

    async def _see_others(self) -> None:
        pulse = await self._pulse(self.instance)
        if pulse is None or pulse.running is None:
            return
        in_flight = pulse.running + (pulse.waiting or 0)
        self._excess = self._excess + 1 if in_flight > self.concurrency() else 0
        if self._excess >= _OTHERS_SEEN:
            self.served_others = True

    async def _see_neighbours(self) -> None:
        """Other instances that work on the same devices."""
        devices = set(self.instance.devices)
        for other in self.roster.list():
            if (
                other.state is InstanceState.READY
                and other.id != self.instance.id
                and devices & set(other.devices)
            ):
                quiet = self.house.quiet
                is_ours = quiet.is_asked(other.id)
                pulse = await self._pulse(other)
                # A probe of gpud's own from before the run is no work of the neighbour's.
                is_ours = is_ours or quiet.is_asked(other.id)
                least = 1 if is_ours else 0
                if pulse is not None and (pulse.running or 0) > least:
                    self.scene.add(
                        "neighbour", f"{other.name} served requests on the same device meanwhile"
                    )

    async def _pulse(self, instance: Instance) -> Pulse | None:
        engine = self.house.engines[instance.engine]
        if instance.id not in self._keys:
            try:
                self._keys[instance.id] = await key_for(instance)
            except ModelFileInvalid:
                self._keys[instance.id] = None  # then it does not tell
        return await engine.pulse(instance.endpoint, self._keys[instance.id])

    def _now(self) -> float:
        return self.house.clock.now().boottime
