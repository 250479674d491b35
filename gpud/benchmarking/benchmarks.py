"""The benchmarks: one at a time per instance, kept when they are done, and found again."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog

from gpud.benchmarking.benchmark import Benchmark, Plan
from gpud.benchmarking.refusals import check_fits
from gpud.benchmarking.run import Phase, Progress, Run
from gpud.errors import GpudError, WrongState
from gpud.events import Cause, Event
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.ledger.change import Change
from gpud.store import Row

log = structlog.get_logger()

KEPT_PER_MODEL: Final = 100
KEPT: Final = 1000
_KIND: Final = "benchmark"


@dataclass(slots=True)
class Benchmarks:
    """The owner of every benchmark that runs or was kept."""

    house: House
    roster: Roster
    _running: set[str] = field(default_factory=set)  # ids of instances
    _known: dict[str, Benchmark] | None = None  # by id, oldest first; None: not read yet

    def kept(self, model: str = "") -> list[Benchmark]:
        """Those that are durable, oldest first; of one model, where it is named."""
        return [each for each in self._read().values() if not model or each.model == model]

    def start(self, instance: Instance, owner: str, plan: Plan) -> Run:
        """Begin one; it is stopped by Run.stop. Raises WrongState, OptionInvalid."""
        if instance.state is not InstanceState.READY:
            raise WrongState(
                name=instance.name,
                state=instance.state.name,
                advice="benchmark one that is READY",
            )
        if instance.sleep is not None:
            raise WrongState(
                name=instance.name,
                state="asleep",
                advice=f"wake it first (`gpuctl wake {instance.name}`): it answers nobody",
            )
        if instance.id in self._running:
            raise WrongState(
                name=instance.name,
                state="being benchmarked",
                advice="wait for that benchmark to end: two would measure each other",
            )
        check_fits(instance.engine, instance.options, plan)
        run = Run(house=self.house, roster=self.roster, instance=instance, plan=plan, owner=owner)
        self._running.add(instance.id)
        self.house.quiet.hold(instance.devices)
        task = self.roster.tend(self._lead(run), f"benchmark of {instance.name}")

        def ended(_: object) -> None:
            self._running.discard(instance.id)
            self.house.quiet.release(instance.devices)
            run.progress.close()

        task.add_done_callback(ended)
        run.stop = task.cancel
        return run

    async def _lead(self, run: Run) -> None:
        """To its end; nothing of it may take the instances' tasks along."""
        self._post(run.benchmark.told("benchmark.started", "", self._wall, run.cause))
        why_void = "stopped before its end"
        try:
            benchmark = await run.measured()
            why_void = ""
            run.finish(await self.keep(benchmark, run.cause))
        except GpudError as error:
            why_void = error.summary
            run.fail(error)
        except Exception:
            log.exception("benchmark.bug", instance=run.instance.name)
            why_void = "an internal error; the daemon's log has it"
            run.fail(GpudError(why_void))
        finally:
            if why_void:
                self._post(run.benchmark.told("benchmark.void", why_void, self._wall, run.cause))

    async def keep(self, benchmark: Benchmark, cause: Cause | None = None) -> Progress:
        """Store it; where that cannot be, it is told all the same."""
        if not benchmark.levels:
            why = "; ".join((*benchmark.void_reasons, "nothing was measured"))
            self._post(benchmark.told("benchmark.void", why, self._wall, cause))
            detail = "not kept: nothing was measured"
            return Progress(phase=Phase.DONE, benchmark=benchmark, detail=detail)
        kept = replace(benchmark, id=f"{benchmark.model}-{secrets.token_hex(3)}")
        why_void = "; ".join(kept.void_reasons)
        type_ = "benchmark.void" if why_void else "benchmark.done"
        change = Change(events=(kept.told(type_, why_void, self._wall, cause),))
        rows = (
            Row(kind=_KIND, id=kept.id, body=msgspec.json.encode(kept)),
            *(Row(kind=_KIND, id=id_, body=None) for id_ in self._too_old(kept.model)),
        )

        def durable() -> None:
            known = self._read()
            for row in rows[1:]:
                known.pop(row.id, None)
            known[kept.id] = kept

        try:
            # Shielded: others may wait for the same record when this client leaves.
            await asyncio.shield(self.house.promises.commit(change, rows, durable))
        except GpudError as error:
            return Progress(phase=Phase.DONE, benchmark=benchmark, detail=f"not kept: {error}")
        return Progress(phase=Phase.DONE, benchmark=kept)

    @property
    def _wall(self) -> float:
        return self.house.clock.now().wall

    def _post(self, event: Event) -> None:
        self.house.promises.post(Change(events=(event,)))

    def _too_old(self, model: str) -> list[str]:
        """Ids that make room for one more of the model."""
        known = self._read()
        own = [id_ for id_, each in known.items() if each.model == model]
        old = own[: max(0, len(own) + 1 - KEPT_PER_MODEL)]
        left = [id_ for id_ in known if id_ not in old]
        return old + left[: max(0, len(left) + 1 - KEPT)]

    def _read(self) -> dict[str, Benchmark]:
        """What is kept; read once. One that makes no sense is left out: nothing depends on it."""
        if self._known is None:
            found = []
            for id_, body in self.house.promises.read(_KIND, msgspec.Raw).items():
                try:
                    found.append(msgspec.json.decode(body, type=Benchmark))
                except (msgspec.MsgspecError, ValueError) as error:
                    log.warning("benchmark.unreadable", id=id_, problem=str(error))
            found.sort(key=lambda each: (each.create_wall, each.id))
            self._known = {each.id: each for each in found}
        return self._known
