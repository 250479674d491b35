"""Errors, drivers that are replaced, and drivers that hang as a whole, in the sampling process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpud.clock import SystemClock
from gpud.devices.sampling.frames import SamplerSettings
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Action, Health, Snapshot
from tests.devices.watching import QUICK, Watcher, health, helpers, running, sample


class Site:
    """Eight stand-in cards, and what befalls them."""

    def __init__(self, folder: Path) -> None:
        self.trigger, self.xids = folder / "trigger", folder / "xids"
        self.xids.write_text("")
        self.watcher = Watcher()

    def befall(self, what: str) -> None:
        fresh = self.trigger.with_suffix(".new")
        fresh.write_text(what)
        fresh.rename(self.trigger)

    def report(self, card: int, xid: int) -> None:
        with self.xids.open("a") as file:
            file.write(f"{card} {xid}\n")

    def sampler(self, limits: Limits = QUICK) -> Sampler:
        settings = SamplerSettings(nvml="on", interval_seconds=0.05, processes_every=2)
        return Sampler(settings, SystemClock(), self.watcher.publish, limits)


@pytest.fixture
def site(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("NVML_STANDIN", "healthy")
    monkeypatch.setenv("NVML_STANDIN_TRIGGER", str(made.trigger))
    monkeypatch.setenv("NVML_STANDIN_XIDS", str(made.xids))
    return made


def shows(alias: str, xids: dict[int, int]) -> Callable[[Snapshot], bool]:
    return lambda snapshot: sample(snapshot, alias).xids == xids


def restart() -> None:
    (pid,) = helpers()
    os.kill(pid, signal.SIGKILL)


async def test_errors_are_counted_on_through_restarts_of_the_sampling_process(
    site: Site,
) -> None:
    sampler, watcher = site.sampler(), site.watcher
    async with running(sampler):
        before = await watcher.until(lambda s: s.complete)
        assert sample(before, "gpu3").xids == {}
        assert sample(before, "host").xids is None
        site.report(3, 31)
        seen = await watcher.until(shows("gpu3", {31: 1}))
        assert sample(seen, "gpu3").verdict.action is Action.RESTART_APP
        restart()
        again = await watcher.until(lambda s: s.boottime > seen.boottime + 0.2)
        assert sample(again, "gpu3").xids == {31: 1}
        site.report(3, 79)
        fatal = await watcher.until(shows("gpu3", {31: 1, 79: 1}))
        assert sample(fatal, "gpu3").verdict.is_fatal
        sampler.dealings.settle("GPU-standin-3")
        over = await watcher.until(lambda s: not sample(s, "gpu3").verdict.is_fatal)
        assert sample(over, "gpu3").xids == {31: 1, 79: 1}
        assert sample(over, "gpu4").xids == {}


async def test_the_errors_of_a_simulated_card_are_not_told_again_by_the_next_process(
    tmp_path: Path,
) -> None:
    scenario, watcher = tmp_path / "scenario.json", Watcher()

    def script(**cards: dict[str, Any]) -> None:
        fresh = tmp_path / "scenario.new"
        fresh.write_text(json.dumps(cards))
        fresh.rename(scenario)

    script(gpu0={"xid": [79, 31]})
    settings = SamplerSettings(
        nvml="off",
        simulated=(("t4", 2),),
        scenario=str(scenario),
        interval_seconds=0.05,
    )
    async with running(Sampler(settings, SystemClock(), watcher.publish, QUICK)):
        first = await watcher.until(shows("gpu0", {79: 1, 31: 1}))
        restart()
        again = await watcher.until(lambda s: s.boottime > first.boottime + 0.2)
        assert shows("gpu0", {79: 1, 31: 1})(again)
        script(gpu0={"xid": [79, 31, 31]})
        await watcher.until(shows("gpu0", {79: 1, 31: 2}))
        script()
        script(gpu1={"xid": [13]})
        await watcher.until(shows("gpu1", {13: 1}))
        script(gpu0={"xid": [79]}, gpu1={"xid": [13]})
        await watcher.until(shows("gpu0", {79: 2, 31: 2}))


async def test_a_driver_that_was_replaced_under_us_is_told_with_what_to_do(site: Site) -> None:
    watcher = site.watcher
    async with running(site.sampler()):
        await watcher.until(lambda s: s.complete)
        site.befall("upgrade 0")  # whoever has the old one open goes on
        later = await watcher.until(lambda s: s.complete)
        assert sample(later, "gpu0").health is Health.HEALTHY
        restart()
        lost = await watcher.until(health("gpu0", Health.LOST))
        told = sample(lost, "gpu0").health_reason
        assert "different versions; reboot, or reload the kernel modules" in told
        assert sample(lost, "gpu7").health is Health.LOST
        assert sample(lost, "gpu0").verdict.action is Action.NONE  # its driver lists it no more
        assert sample(lost, "host").health is Health.HEALTHY
        (trouble,) = lost.troubles
        assert told in trouble.words
        assert 'devices.nvml = "on"' in trouble.words
        assert trouble.is_wanted


async def test_a_driver_that_hangs_as_a_whole_is_left_alone_until_it_answers(
    site: Site,
) -> None:
    watcher = site.watcher
    async with running(site.sampler(replace(QUICK, opening=0.5, probe_start=1.0))):
        await watcher.until(lambda s: s.complete)
        site.befall("freeze 0")

        def all_silent(snapshot: Snapshot) -> bool:
            cards = [s for s in snapshot.samples if s.info.alias != "host"]
            return all(s.health is Health.UNRESPONSIVE for s in cards)

        frozen = await watcher.until(all_silent)
        later = await watcher.until(
            lambda s: sample(s, "host").boottime > frozen.boottime + 0.3 and all_silent(s)
        )
        assert sample(later, "host").health is Health.HEALTHY
        assert len(helpers()) <= 2
        site.befall("")
        await watcher.until(lambda s: all(x.health is Health.HEALTHY for x in s.samples))


async def test_a_card_that_hangs_from_the_start_keeps_no_other_away(site: Site) -> None:
    watcher = site.watcher
    site.befall("hang 3")
    async with running(site.sampler(replace(QUICK, opening=1.0, probe_start=1.0))):
        others = await watcher.until(lambda s: len(s.samples) == 8)
        assert {each.info.alias for each in others.samples} >= {"gpu0", "gpu6", "host"}
        assert all(each.health is Health.HEALTHY for each in others.samples)
        (trouble,) = others.troubles
        assert "did not answer when it was first asked" in trouble.words
        assert (bool(trouble.device), trouble.is_wanted) == (True, False)
        site.befall("")
        whole = await watcher.until(lambda s: len(s.samples) == 9 and not s.troubles)
        assert all(each.health is Health.HEALTHY for each in whole.samples)


async def test_a_card_that_waits_for_a_reset_says_so(site: Site) -> None:
    watcher = site.watcher
    async with running(site.sampler()):
        await watcher.until(lambda s: s.complete)
        site.befall("reset 2")
        waits = sample(await watcher.until(health("gpu2", Health.LOST)), "gpu2")
        assert waits.health_reason == "it needs a reset before it can be read again"
        assert (waits.verdict.action, waits.verdict.is_fatal) == (Action.RESET, True)
        site.befall("lost 2")
        gone = await watcher.until(
            lambda s: sample(s, "gpu2").health_reason != waits.health_reason
        )
        assert sample(gone, "gpu2").verdict.action is Action.REBOOT
        site.befall("")
        back = sample(await watcher.until(health("gpu2", Health.HEALTHY)), "gpu2")
        assert back.verdict.action is Action.NONE
