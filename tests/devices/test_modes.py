"""Compute modes through the sampling process, on the stand-in library and on fake drivers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.devices.driver import ModeOutcome, ModeRefusal
from gpud.devices.sampling.frames import ModeAnswer, SamplerSettings
from gpud.devices.sampling.helper import obey
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.mode_setter import ModeSetter
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Health
from tests.devices.test_helper import Floor, wait_until
from tests.devices.test_nvml import befall, trigger
from tests.devices.test_sampler import fake_sampler, full_tick
from tests.devices.watching import QUICK, UNHURRIED, Watcher, health, helpers, running, sample
from tests.fakes.driver import FakeDriver

__all__ = ["trigger"]
FIFTH = "GPU-standin-5"


@pytest.fixture
def modes(trigger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "modes"
    path.write_text("00000000")
    monkeypatch.setenv("NVML_STANDIN_MODES", str(path))
    return path


def digits(modes: Path) -> str:
    return modes.read_text()


def nvml_sampler(watcher: Watcher, limits: Limits = UNHURRIED) -> Sampler:
    settings = SamplerSettings(
        nvml="on", simulated=(("t4", 1),), interval_seconds=0.05, processes_every=2
    )
    return Sampler(settings, SystemClock(), watcher.publish, limits)


async def test_a_mode_is_set_shown_at_once_and_sampled(modes: Path) -> None:
    watcher = Watcher()
    sampler = nvml_sampler(watcher)
    async with running(sampler):
        await watcher.until(lambda s: s.complete)
        outcome = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert outcome == ModeOutcome(shown="exclusive_process")
        seen = await watcher.until(
            lambda s: sample(s, "gpu5").readings.compute_mode == "exclusive_process"
        )
        assert sample(seen, "gpu4").readings.compute_mode == "default"
        assert digits(modes) == "00000300"
        assert (await sampler.set_compute_mode(FIFTH, "default")).shown == "default"


async def test_what_refuses_says_why_and_what_it_shows(modes: Path, trigger: Path) -> None:
    watcher = Watcher()
    sampler = nvml_sampler(watcher)
    async with running(sampler):
        first = await watcher.until(lambda s: s.complete)
        befall(trigger, "deny 5")
        denied = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert (denied.refusal, denied.shown) == (ModeRefusal.NOT_PERMITTED, "default")
        befall(trigger, "ignore 5")
        ignored = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert ignored == ModeOutcome(shown="default")
        befall(trigger, "lost 5")
        lost = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert (lost.refusal, lost.shown) == (ModeRefusal.LOST, None)
        for alias in ("gpu8", "host"):
            uuid = sample(first, alias).info.uuid
            refused = await sampler.set_compute_mode(uuid, "exclusive_process")
            assert (refused.refusal, refused.shown) == (ModeRefusal.NOT_SUPPORTED, None)
            assert refused.detail
    assert digits(modes) == "00000000"


async def test_a_card_that_stalls_holds_up_no_reading_and_no_caller(
    modes: Path, trigger: Path
) -> None:
    watcher = Watcher()
    sampler = nvml_sampler(watcher, Limits(device=3.0))
    async with running(sampler):
        await watcher.until(lambda s: s.complete)
        (helper,) = helpers()
        befall(trigger, "stall 5")
        stalled = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert stalled == ModeOutcome(refusal=ModeRefusal.NO_ANSWER, detail="nothing within 3 s")
        again = await sampler.set_compute_mode(FIFTH, "default")
        assert (again.refusal, again.detail) == (
            ModeRefusal.NO_ANSWER,
            "an earlier call is not back yet",
        )
        # Others take theirs, it is read on, and the first order comes to be in its time.
        other = await sampler.set_compute_mode("GPU-standin-4", "exclusive_process")
        assert other.shown == "exclusive_process"
        befall(trigger, "")
        late = await watcher.until(
            lambda s: sample(s, "gpu5").readings.compute_mode == "exclusive_process"
        )
        assert sample(late, "gpu5").health is Health.HEALTHY
        assert helpers() == [helper]


async def test_a_hanging_card_is_not_asked(modes: Path, trigger: Path) -> None:
    watcher = Watcher()
    sampler = nvml_sampler(watcher, QUICK)
    async with running(sampler):
        await watcher.until(lambda s: s.complete)
        befall(trigger, "hang 5")
        await watcher.until(health("gpu5", Health.UNRESPONSIVE))
        await watcher.until(lambda s: s.boottime > sample(s, "gpu5").boottime)
        outcome = await sampler.set_compute_mode(FIFTH, "exclusive_process")
        assert outcome.refusal is ModeRefusal.NO_ANSWER


async def test_an_order_ends_with_the_process_that_had_it() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher, Limits(device=60.0))
    assert (await sampler.set_compute_mode("GPU-a", "default")).refusal is ModeRefusal.NO_ANSWER
    async with running(sampler):
        child = await spawner.next(1)
        full_tick(child)

        def end() -> None:
            assert child.commands == ["mode 1 GPU-a default"]
            child.end()

        asyncio.get_running_loop().call_later(0.01, end)
        outcome = await sampler.set_compute_mode("GPU-a", "default")
        assert outcome.detail == "the sampling process ended"


def test_a_helper_sets_what_it_reads_and_nothing_else() -> None:
    card = FakeDriver("GPU-a")
    floor = Floor(lambda: card, skipped=("SIM-0",))
    floor.tick()
    obey(floor.helper, "mode 3 GPU-a exclusive_process")
    for number, uuid in ((4, "SIM-0"), (5, "GPU-nobody")):
        obey(floor.helper, f"mode {number} {uuid} default")
    wait_until(lambda: sum(isinstance(frame, ModeAnswer) for frame in floor.sent) == 3)
    told = {frame.number: frame.outcome for frame in floor.sent if isinstance(frame, ModeAnswer)}
    assert told[3] == ModeOutcome(shown="exclusive_process")
    assert {told[n].refusal for n in (4, 5)} == {ModeRefusal.NO_ANSWER}


def test_one_order_at_a_time_to_a_device() -> None:
    card = FakeDriver("GPU-a")
    sent: list[ModeAnswer] = []
    setter = ModeSetter(sent.append)
    go = card.hang("GPU-a")
    setter.set(1, "GPU-a", "default", card)
    setter.set(2, "GPU-a", "exclusive_process", card)
    assert [(a.number, a.outcome.refusal) for a in sent] == [(2, ModeRefusal.NO_ANSWER)]
    go.set()
    wait_until(lambda: len(sent) == 2)
    assert (sent[1].number, sent[1].outcome.shown) == (1, "default")
