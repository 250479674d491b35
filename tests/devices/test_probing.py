"""What hangs takes nothing else along: not while it is looked for, nor while others are probed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.devices.sampling.frames import Orders, SamplerSettings, TickBegan, Unanswered
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Health, Snapshot
from tests.devices.test_nvml import befall, trigger
from tests.devices.test_sampler import answer, begin, full_tick
from tests.devices.watching import PATIENCE_SECONDS, QUICK, Watcher, health, running
from tests.fakes.child import FakeChild, FakeSpawner

__all__ = ["trigger"]
# The first probe comes when the second has long been due.
ALIKE = Limits(device=0.3, probe_first=0.1, probe_longest=0.1, restart_first=0.01)


class LingeringChild(FakeChild):
    """Takes its time to die, as a process with much memory does: not gone for two looks."""

    looks = 2

    def is_gone(self) -> bool:
        if self.is_abandoned:
            self.looks -= 1
        return self.looks < 0


class Lingering(FakeSpawner):
    def __call__(self, orders: Orders, receive: object) -> FakeChild:
        child = LingeringChild(orders, receive, pid=len(self.children) + 1)  # type: ignore[arg-type]
        self.children.append(child)
        self._spawned.set()
        return child


def names(snapshot: Snapshot, wanted: Iterable[Health]) -> list[str]:
    return [s.info.alias for s in snapshot.samples if s.health in wanted]


async def test_a_card_that_hangs_as_it_is_looked_for_hides_no_other(trigger: Path) -> None:
    watcher = Watcher()
    settings = SamplerSettings(nvml="on", host=False, interval_seconds=0.05, processes_every=1)
    async with running(Sampler(settings, SystemClock(), watcher.publish, QUICK)):
        await watcher.until(lambda s: s.complete)
        befall(trigger, "hang 3")  # each tick looks for cards before it reads one
        hung = await watcher.until(health("gpu3", Health.UNRESPONSIVE))

        def others_go_on(snapshot: Snapshot) -> bool:
            others = [s for s in snapshot.samples if s.info.alias != "gpu3"]
            return all(s.boottime > hung.boottime for s in others)

        later = await watcher.until(others_go_on)
        assert "gpu3" in names(later, [Health.UNRESPONSIVE])
        befall(trigger, "")
        await watcher.until(lambda s: len(names(s, [Health.HEALTHY])) == 8)


async def test_who_hangs_as_it_is_looked_for_is_left_out_alone() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, QUICK, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        first.asked_last = "GPU-b"
        first.say(TickBegan(boottime=2.0, wall=2.0, then="nvml"))
        second = await spawner.next(2)
        assert second.orders.skipped == ("GPU-b",)
        assert names(watcher.snapshots[-1], [Health.UNRESPONSIVE]) == ["gpu1"]
        # And one that takes the process down meanwhile.
        full_tick(second)
        second.asked_last = "GPU-a"
        second.say(TickBegan(boottime=3.0, wall=3.0, then="nvml"))
        second.end()
        await watcher.until(health("gpu0", Health.UNRESPONSIVE))
        assert names(watcher.snapshots[-1], [Health.HEALTHY]) == ["gpu2"]


async def test_a_probe_touches_nothing_else_that_is_left_out() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, QUICK, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        for uuid in ("GPU-a", "GPU-b"):
            first.say(Unanswered(uuid=uuid))
        await spawner.next(2)
        probe = await spawner.next(3)
        # Not even the one that it is about, before it is asked under the limit of a device.
        assert probe.orders.only in ("GPU-a", "GPU-b")
        assert set(probe.orders.skipped) == {"GPU-a", "GPU-b"}


async def test_a_driver_is_probed_without_the_card_that_hangs() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, QUICK, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        begin(first, "GPU-a")
        second = await spawner.next(2)
        second.say(TickBegan(boottime=2.0, wall=2.0, then="nvml"))
        probes: dict[str, FakeChild] = {}
        number = 2
        while "nvml" not in probes:
            number += 1
            child = await spawner.next(number)
            probes[child.orders.only] = child
            if child.orders.only == "GPU-a":
                child.say(TickBegan(boottime=3.0, wall=3.0, then="GPU-a"))  # for good
        assert probes["nvml"].orders.skipped == ("GPU-a",)
        begin(probes["nvml"], "")
        probes["nvml"].end()
        live = next(c for c in spawner.children if "nvml" in c.orders.skipped)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await live.heard(1)
        assert live.commands == ["take nvml"]


@pytest.mark.parametrize("first_due", ["GPU-a", "GPU-b"])
async def test_who_hangs_for_good_does_not_take_the_turn_of_who_answers(first_due: str) -> None:
    watcher, spawner = Watcher(), Lingering()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, ALIKE, spawner
    )
    healed = {"GPU-a": "GPU-b", "GPU-b": "GPU-a"}[first_due]
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        for uuid in (first_due, healed):
            first.say(Unanswered(uuid=uuid))
        live = await spawner.next(2)
        full_tick(live)
        number = 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not live.commands:
                number += 1
                probe = await spawner.next(number)
                probe.say(TickBegan(boottime=2.0, wall=2.0, then=probe.orders.only))
                if probe.orders.only == healed:
                    probe.say(answer(healed))
                    probe.end()
                    await live.heard(1)
        assert live.commands == [f"take {healed}"]
