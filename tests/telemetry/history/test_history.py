"""The history as the daemon uses it: seen, kept over a restart, asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.devices.snapshot import HostReadings, Sample, Snapshot, Thermal
from gpud.errors import WrongState
from gpud.ledger.charge import Charge
from gpud.settings import History as Settings
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.history.asking import Answer, Asked
from gpud.telemetry.history.fields import BY_NAME
from gpud.telemetry.history.history import History
from tests.fakes import cards
from tests.telemetry.alerts.scenes import charge

T0 = 1_700_002_800.0  # an hour begins here
USED = BY_NAME["memory_used_bytes"]


class Record:
    """A history, its folder, and what it told."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.folder, self.settings = folder, settings or Settings()
        self.told: list[tuple[str, str]] = []
        self.charges: dict[str, Charge] = {}
        self.history = self.begun()

    def begun(self) -> History:
        self.history = History(
            self.settings, self.folder, 0, lambda *event: self.told.append(event)
        )
        return self.history

    def restart(self) -> None:
        self.history.close()
        self.begun().start()

    def see(self, second: float, *samples: Sample) -> None:
        """A snapshot so long after T0."""
        self.history.see(
            Snapshot(
                sequence=1,
                boottime=1000 + second,
                wall=T0 + second,
                samples=samples,
                host=HostReadings(cpu_percent=5.0),
            ),
            dict(self.charges),
        )

    async def ask(self, until: float, window: float, *subjects: str) -> Answer:
        asked = Asked(
            subjects=subjects or ("devices/U-gpu0",),
            fields=(USED, BY_NAME["cpu_percent"], BY_NAME["requests_running"]),
            begin=T0 + until - window,
            end=T0 + until,
        )
        return await self.history.query(asked)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record(tmp_path)
    yield made
    made.history.close()


def card(second: float, used: int) -> Sample:
    return cards.sample(used=used, boottime=1000 + second)


async def test_it_outlives_a_restart_and_the_time_between_is_a_gap(record: Record) -> None:
    record.history.start()
    for second in range(40):
        record.see(second, card(second, second))
    record.restart()
    for second in range(100, 105):
        record.see(second, card(second, second))
    answer = await record.ask(105, 300)
    ((points, field),) = [(series.points, series.field) for series in answer.series]
    assert (field, answer.step, answer.oldest) == (USED, 1, T0)
    assert [point.time - T0 for point in points] == [*range(40), *range(100, 105)]
    assert all(point.last == point.time - T0 for point in points)
    assert dict(await record.history.subjects()) == {"devices/U-gpu0": "gpu0", "host": ""}


class Wrong:
    """A clock that is put right or wrong while a card is watched, each second."""

    def __init__(self, record: Record) -> None:
        self.record, self.boot = record, 0

    async def shows(self, begin: int, seconds: int, used: int) -> None:
        """It goes so long from so long after T0, and the card holds so much."""
        for second in range(begin, begin + seconds):
            self.boot += 1
            self.record.see(second, card(self.boot, used))
            if second % 20 == 0:
                await self.record.history.subjects()  # the thread keeps up

    async def told(self, begin: int, end: int, step: int) -> tuple[int, list[float]]:
        """How many readings of a span are told, and what the card held in each step."""
        asked = Asked(
            subjects=("devices/U-gpu0",), fields=(USED,), begin=T0 + begin, end=T0 + end, step=step
        )
        (series,) = (await self.record.history.query(asked)).series
        return sum(point.count for point in series.points), [p.last for p in series.points]


@pytest.mark.parametrize("ahead", [900, 7200])
async def test_a_clock_that_was_ahead_for_a_while_costs_nothing(
    record: Record, ahead: int
) -> None:
    record.history.start()
    clock = Wrong(record)
    await clock.shows(0, 125, 1)
    await clock.shows(ahead + 125, 40, 2)
    await clock.shows(165, 700, 3)
    assert await clock.told(0, 865, 60) == (825, [1, 1, 3, *[3] * 12])  # the hour goes on
    await clock.shows(865, 3600 - 865 + 400, 3)
    for step in (10, 60):
        assert (await clock.told(0, 3600, step))[0] == 3560


async def test_where_a_clock_was_set_back_the_newest_is_told(record: Record) -> None:
    record.history.start()
    clock = Wrong(record)
    await clock.shows(0, 3700, 1)
    await clock.shows(1800, 215, 2)
    for step, first, newest in ((10, 2, 22), (60, 2, 4)):
        # Nor is anything told of after now.
        assert (await clock.told(1800 - first * step + 1, 2015, step))[1] == [1] * first + [
            2
        ] * newest
    await clock.shows(2015, 1700, 2)
    for step in (10, 60):
        assert (await clock.told(1800, 3600, step)) == (1800, [2] * (1800 // step))
        assert set((await clock.told(0, 1800, step))[1]) == {1}


async def test_a_card_that_shows_nothing_new_has_a_gap(record: Record) -> None:
    record.history.start()
    hung = card(1, 7)
    for second in range(3):
        record.see(second, card(second, 5) if second < 1 else hung)
    answer = await record.ask(3, 60, "devices/U-gpu0", "host")
    told = {s.subject: [(p.time - T0, p.last) for p in s.points] for s in answer.series}
    assert told == {
        "devices/U-gpu0": [(0, 5), (1, 7)],
        "host": [(0, 5.0), (1, 5.0), (2, 5.0)],
    }


async def test_of_a_card_at_rest_what_changes_beside_its_readings_is_kept(record: Record) -> None:
    record.history.start()
    resting = card(0, 5)
    record.see(0, resting)
    record.see(1, replace(resting, boottime=1001.0))
    record.charges["U-gpu0"] = charge(granted_bytes=7)
    record.see(2, replace(resting, boottime=1002.0))
    record.see(3, replace(resting, boottime=1003.0, thermal=Thermal.WARNING))
    record.see(4, replace(resting, boottime=1004.0, readings=resting.readings.changed()))
    fields = (USED, BY_NAME["granted_bytes"], BY_NAME["thermal"])
    asked = Asked(subjects=("devices/U-gpu0",), fields=fields, begin=T0, end=T0 + 5)
    told = [[p.last for p in s.points] for s in (await record.history.query(asked)).series]
    assert told == [[5, 5, 5, 5, 5], [7, 7, 7], [2]]


async def test_engines_are_kept_by_instance_and_by_model(record: Record) -> None:
    record.history.start()
    one = EngineReading(instance="i", model="m", boottime=1.0, wall=T0, running=2)
    other = replace(one, instance="j", running=3)
    broken = replace(other, boottime=2.0, problem="it does not answer", running=9)
    record.history.see_engines([one, other], T0 + 1)
    record.history.see_engines([one, broken], T0 + 2)
    subjects = ("instances/i", "instances/j", "models/m")
    answer = await record.ask(5, 60, *subjects)
    told = [[(p.time - T0, p.last) for p in s.points] for s in answer.series]
    assert told == [[(1, 2)], [(1, 3)], [(1, 5)]]
    assert set(subjects) <= set(await record.history.subjects())


async def test_without_a_disk_the_ring_tells(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    record = Record(tmp_path)
    record.history.start()
    for second in range(40):
        record.see(second, card(second, second))
    (series,) = (await record.ask(40, 60)).series
    assert len(series.points) == 40
    assert [type_ for type_, _ in record.told] == ["history.paused"]
    (tmp_path / "history.db").rmdir()
    for second in range(40, 70):
        record.see(second, card(second, second))
    assert (await record.ask(70, 60)).oldest == T0
    assert [type_ for type_, _ in record.told] == ["history.paused", "history.resumed"]
    record.restart()
    (series,) = (await record.ask(70, 80)).series
    assert len(series.points) == 70
    record.history.close()


async def test_nothing_is_kept_where_it_is_off(tmp_path: Path) -> None:
    record = Record(tmp_path, Settings(on=False))
    record.history.start()
    record.see(0, card(0, 1))
    with pytest.raises(WrongState, match=r"the history: it is off; set history.on = true"):
        await record.ask(1, 60)
    record.history.close()
    assert not (tmp_path / "history.db").exists()
