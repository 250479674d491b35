"""One benchmark from its drain to its last request; who asked follows it, and may leave."""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from gpud.benchmarking.answers import RequestFailed
from gpud.benchmarking.benchmark import Benchmark, Level, Plan
from gpud.benchmarking.post import Poster
from gpud.benchmarking.refusals import BenchmarkFailed
from gpud.benchmarking.runner import Runner
from gpud.benchmarking.statistics import Tally
from gpud.benchmarking.verdict import Scene
from gpud.benchmarking.witness import Witness
from gpud.benchmarking.workload import Dialect
from gpud.engines.api_key import ApiKey
from gpud.errors import EngineMissing, GpudError, OptionInvalid, WrongState
from gpud.events import Cause, present_cause
from gpud.feed import Feed
from gpud.instances.instance import Instance
from gpud.instances.life import House
from gpud.instances.race import unless
from gpud.instances.roster import Roster
from gpud.instances.starting.handing import key_for
from gpud.models.model import ModelKind

DRAIN_SECONDS: Final = 30.0
_DRAIN_POLL_SECONDS: Final = 0.1
_SILENCES: Final = 3


class Phase(enum.Enum):
    """Where a benchmark is."""

    DRAIN = "drain"
    WARMUP = "warmup"
    MEASURE = "measure"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: requests of the level under way, and the levels that are done."""

    phase: Phase
    benchmark: Benchmark
    concurrency: int = 0
    requests_done: int = 0
    requests_total: int = 0
    elapsed_seconds: float = 0.0
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Run:
    """One benchmark. `stop` ends it, and the requests that it has open."""

    house: House
    roster: Roster
    instance: Instance
    plan: Plan
    owner: str
    cause: Cause | None = field(default_factory=present_cause)  # the call that asked for it
    stop: Callable[[], object] = lambda: None
    progress: Feed[Progress] = field(default_factory=Feed)
    error: GpudError | None = None  # once the progress has ended without DONE
    benchmark: Benchmark = field(init=False)
    _began: float = 0.0
    _concurrency: int = 0

    def __post_init__(self) -> None:
        now = self.house.clock.now()
        self._began = now.boottime
        self.benchmark = Benchmark(
            model=self.instance.model,
            instance=self.instance.id,
            owner=self.owner,
            engine=self.instance.engine,
            options=self.instance.options,
            plan=self.plan,
            create_wall=now.wall,
        )

    def finish(self, last: Progress) -> None:
        """Tell the last, and that nothing follows."""
        self.progress.publish(replace(last, elapsed_seconds=self._elapsed()))
        self.progress.close()

    def fail(self, error: GpudError) -> None:
        """Tell that there is no result."""
        self.error = error
        self.progress.close()

    async def measured(self) -> Benchmark:
        """The whole of it. Raises GpudError."""
        instance, house = self.instance, self.house
        key = await key_for(instance)
        if self.plan.drained:
            await self._drain(key)
        runner = await self._runner(key)
        scene = Scene(uuids=instance.devices)
        witness = Witness(
            house=house,
            roster=self.roster,
            instance=instance,
            scene=scene,
            key=key,
            concurrency=lambda: self._concurrency,
        )
        await witness.begin()
        await self._measure(runner, witness)
        failed = any(level.errors for level in runner.levels)
        await witness.end(None if failed else runner.output_tokens)
        if self.plan.drained and witness.served_others:
            scene.add("others", "the instance served others meanwhile, and was to be drained")
        self.benchmark = replace(
            self.benchmark,
            engine_version=await self._version(),
            duration_seconds=self._elapsed(),
            served_others=witness.served_others,
            levels=tuple(runner.levels),
            devices=scene.records(),
            void_reasons=scene.reasons,
        )
        return self.benchmark

    async def _version(self) -> str:
        """Empty where its program has been taken away since it was started."""
        with suppress(EngineMissing):
            return (await self.house.engines[self.instance.engine].program()).version
        return ""

    async def _drain(self, key: ApiKey | None) -> None:
        """Raises WrongState: others are served for too long; OptionInvalid: it does not tell."""
        instance, clock = self.instance, self.house.clock
        engine = self.house.engines[instance.engine]
        until = clock.now().boottime + DRAIN_SECONDS
        silences = 0
        while (in_flight := await engine.in_flight(instance.endpoint, key)) != 0:
            # One that is busy may be late with an answer.
            silences = silences + 1 if in_flight is None else 0
            if silences >= _SILENCES:
                problem = "the engine does not tell whether requests are in flight"
                raise OptionInvalid(field="drained", problem=f"{problem}; measure it live")
            told = f"{in_flight or 'unknown'} requests of others"
            self._tell(Phase.DRAIN, detail=f"{told} in flight")
            if clock.now().boottime >= until:
                raise WrongState(
                    name=instance.name,
                    state=f"serving {told} for {DRAIN_SECONDS:g} s",
                    advice="try again later, or measure it live",
                )
            await clock.sleep(_DRAIN_POLL_SECONDS)

    async def _runner(self, key: ApiKey | None) -> Runner:
        """Raises ModelNotFound, ModelFileInvalid, OptionInvalid."""
        catalogue, instance = self.house.catalogue, self.instance
        model = catalogue.get(instance.model)
        kind = model.kind or (await catalogue.inspect(model)).kind
        if instance.options.embedding and kind is not ModelKind.RERANK:
            kind = ModelKind.EMBEDDING
        if kind is None:
            raise OptionInvalid(
                field="model", problem="the catalogue does not say what kind it is of; set kind"
            )
        served = model.command.served_name if model.command is not None else ""
        return Runner(
            poster=Poster(endpoint=instance.endpoint, clock=self.house.clock, key=key),
            dialect=Dialect(
                engine=instance.engine,
                kind=kind,
                model=served or model.id,
                salt=secrets.token_hex(8),
                pools=instance.options.pooling != "none",
            ),
            plan=self.plan,
            on_progress=self._on_progress,
        )

    async def _measure(self, runner: Runner, witness: Witness) -> None:
        """Warm up, then the levels, until they are done, time is up, or the engine is gone."""
        self._concurrency = 1
        self._tell(Phase.WARMUP)
        scene, limit = witness.scene, self.plan.limit_seconds
        try:
            async with asyncio.timeout(limit):
                lost = await unless(self._levels(runner), witness.watch())
            if lost:
                scene.add("lost", f"{lost} meanwhile")
        except TimeoutError:
            scene.add("limit", f"stopped by its limit of {limit:g} s")
        except RequestFailed as failed:
            raise BenchmarkFailed(
                instance=self.instance.name, kind=failed.kind, detail=failed.detail
            ) from failed

    async def _levels(self, runner: Runner) -> None:
        await runner.warm_up()
        await runner.measure()

    def _on_progress(self, tally: Tally, done: Sequence[Level]) -> None:
        self._concurrency = tally.concurrency
        if len(done) != len(self.benchmark.levels):
            self.benchmark = replace(self.benchmark, levels=tuple(done))
        self._tell(Phase.MEASURE, tally=tally)

    def _tell(self, phase: Phase, *, tally: Tally | None = None, detail: str = "") -> None:
        self.progress.publish(
            Progress(
                phase=phase,
                benchmark=self.benchmark,
                concurrency=tally.concurrency if tally is not None else 0,
                requests_done=tally.ended if tally is not None else 0,
                requests_total=self.plan.prompts if tally is not None else 0,
                elapsed_seconds=self._elapsed(),
                detail=detail,
            )
        )

    def _elapsed(self) -> float:
        return self.house.clock.now().boottime - self._began
