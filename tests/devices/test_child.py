"""The daemon's end of a sampling process."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from gpud.clock import SystemClock
from gpud.devices.sampling.frames import SamplerSettings
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Snapshot
from tests.devices.watching import UNHURRIED, Watcher, helpers, running


async def test_a_mistake_of_who_is_told_is_logged_and_ends_no_process(tmp_path: Path) -> None:
    watcher = Watcher()

    def publish(snapshot: Snapshot) -> None:
        watcher.publish(snapshot)
        raise ValueError(f"of snapshot {snapshot.sequence}")

    settings = SamplerSettings(
        nvml="off",
        simulated=(("gtx-1080-ti", 1),),
        scenario=str(tmp_path / "scenario.json"),
        interval_seconds=0.02,
    )
    with capture_logs() as logged:
        async with running(Sampler(settings, SystemClock(), publish, UNHURRIED)):
            await watcher.until(lambda s: s.complete)
            (first,) = helpers()
            await watcher.until(lambda s: s.sequence >= 5)
            assert helpers() == [first]
    bugs = [each for each in logged if each["event"] == "sampling.bug"]
    assert len(bugs) == len(watcher.snapshots)
    assert all(each["exc_info"] for each in bugs)
