"""Simulated cards: their memory, their scenario."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gpud.devices.driver import Aliases, DeviceLost
from gpud.devices.processes import ProcessTable
from gpud.devices.simulated import Scenario, SimulatedDriver, load_cards, simulated_slots
from gpud.devices.snapshot import DeviceKind, ProcessUse, Readings
from tests.devices.proc_tree import ProcTree
from tests.fakes.clock import FakeClock

KIB = 1024
MIB = 1024**2
FIRST, SECOND = "SIM-p106-100-0", "SIM-p106-100-1"


class Bench:
    """Two cards, the processes of this host and a scenario, all the test's own."""

    def __init__(self, folder: Path) -> None:
        self.tree = ProcTree(folder)
        self.clock = FakeClock()
        self.path = folder / "scenario.json"
        self.complaints: list[str] = []
        self._table = ProcessTable(self.tree.proc)
        self.driver = SimulatedDriver(
            simulated_slots((("p106-100", 2),), Aliases()),
            self._table,
            Scenario(str(self.path), self.complaints.append, ("gpu0", "gpu1")),
            self.clock,
        )

    def script(self, **cards: dict[str, Any]) -> None:
        """Replace the file, as editors do."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(cards))
        fresh.rename(self.path)

    def readings(self, uuid: str = FIRST) -> Readings:
        self._table.scan(self.clock.now().boottime)
        return self.driver.readings(uuid)

    def processes(self, uuid: str = FIRST) -> tuple[ProcessUse, ...] | None:
        self._table.scan(self.clock.now().boottime)
        return self.driver.processes(uuid)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_card_that_the_design_names_has_data() -> None:
    names = "p106-100 titan-x gtx-1080-ti rtx-3060 rtx-3080 rtx-3090 rtx-4090 a100-80gb t4"
    cards = load_cards()
    assert {*names.split(), "h100-80gb", "h200"} <= cards.keys()
    for card in cards.values():
        assert 0 < card.idle_power_watts < card.power_limit_watts
        assert 4096 < card.memory_total_mib < 200_000


def test_cards_are_numbered_per_kind_and_aliased_across_kinds() -> None:
    slots = simulated_slots((("t4", 1), ("h200", 2), ("t4", 1)), Aliases())
    infos = [info for info, _ in slots]
    assert [info.uuid for info in infos] == ["SIM-t4-0", "SIM-h200-0", "SIM-h200-1", "SIM-t4-1"]
    assert [info.alias for info in infos] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert {info.kind for info in infos} == {DeviceKind.SIMULATED}


def test_an_idle_card_is_empty_cool_and_steady(bench: Bench) -> None:
    first = bench.readings()
    assert first.memory_used_bytes == 0
    assert first.utilization_percent == 0
    assert first.sm_clock_mhz == 1506
    bench.clock.advance(100)
    assert bench.readings() == first
    assert bench.processes() == ()


def test_attached_processes_hold_memory_of_their_card_alone(bench: Bench) -> None:
    bench.tree.add(7, resident_kib=96, CUDA_VISIBLE_DEVICES=FIRST, GPUD_RESERVATION="r-7")
    bench.tree.add(8, resident_kib=46, CUDA_VISIBLE_DEVICES=f"{SECOND},{FIRST}")
    bench.tree.add(9, resident_kib=1000, CUDA_VISIBLE_DEVICES="0,1")
    assert bench.readings().memory_used_bytes == 150 * KIB
    assert bench.readings(SECOND).memory_used_bytes == 50 * KIB
    listed = bench.processes()
    assert listed is not None
    assert {(use.pid, use.used_bytes, use.claim) for use in listed} == {
        (7, 100 * KIB, "r-7"),
        (8, 50 * KIB, None),
    }


def test_the_scenario_is_read_again_when_it_changes(bench: Bench) -> None:
    bench.script(gpu0={"temperature_celsius": 86, "utilization_percent": 90, "power_watts": 120})
    hot = bench.readings()
    assert (hot.temperature_celsius, hot.utilization_percent, hot.power_watts) == (86, 90, 120)
    assert bench.readings(SECOND).temperature_celsius == 34
    bench.script(gpu1={"temperature_celsius": 70})
    assert bench.readings().temperature_celsius == 34
    assert bench.readings(SECOND).temperature_celsius == 70
    bench.path.unlink()
    assert bench.readings(SECOND).temperature_celsius == 34


def test_an_unreadable_scenario_keeps_the_last_good_one_and_is_told_once(bench: Bench) -> None:
    bench.script(gpu0={"temperature_celsius": 86})
    assert bench.readings().temperature_celsius == 86
    bench.path.write_text('{"gpu0": {"temperature_cel')
    for _ in range(3):
        assert bench.readings().temperature_celsius == 86
    assert len(bench.complaints) == 1
    bench.script(gpu0={"temperature_celsius": "hot"})
    assert bench.readings().temperature_celsius == 86
    assert len(bench.complaints) == 2
    bench.script(gpu0={"temperature_celsius": 50})
    assert bench.readings().temperature_celsius == 50


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            {"throttle_reasons": ["power_cap", "hw_thermal"]},
            "gpu1: Invalid enum value 'hw_thermal' - at `throttle_reasons[1]`; write one of ",
        ),
        ({"recovery_action": "x"}, "`recovery_action`; write one of none, reset, "),
        (
            {"fan_percent": 300},
            "gpu1: Expected `float` <= 100.0 - at `fan_percent`; the last good",
        ),
        ({"xid": [0]}, "gpu1: Expected `int` >= 1 - at `xid[0]`; the last good"),
        (3, "gpu1: Expected `object`, got `int`; the last good"),
    ],
)
def test_what_is_wrong_with_a_scenario_names_the_card_and_what_may_stand_there(
    script: Any, told: str, bench: Bench
) -> None:
    bench.script(gpu0={"throttle_reasons": ["power_cap"]}, gpu1=script)
    bench.readings()
    (complaint,) = bench.complaints
    assert told in complaint


def test_a_scenario_that_is_missing_is_told_once_each_time(bench: Bench) -> None:
    for _ in range(3):
        assert bench.readings().temperature_celsius == 34
    (told,) = bench.complaints
    assert str(bench.path) in told
    assert "no such file" in told
    bench.script(gpu0={"temperature_celsius": 86})
    assert bench.readings().temperature_celsius == 86
    bench.path.unlink()
    bench.readings()
    assert bench.complaints == [told, told]


def test_what_a_scenario_names_in_vain_is_told_once(bench: Bench) -> None:
    bench.script(gpu0={"temperature_celsius": 86}, gpu7={}, host={})
    assert bench.readings().temperature_celsius == 86
    for name, told in zip(("gpu7", "host"), bench.complaints, strict=True):
        assert f"`{name}` is no simulated card" in told
    assert all("gpu0, gpu1" in told for told in bench.complaints)
    bench.script(gpu0={"temperature": 5, "power_watts": 99}, gpu7={})
    assert bench.readings().power_watts == 99
    assert len(bench.complaints) == 3
    assert "`gpu0` has the unknown key `temperature`" in bench.complaints[-1]
    bench.script(gpu0={"temperature": 6})
    bench.readings()
    assert len(bench.complaints) == 3


def test_foreign_processes_hold_memory_without_a_claim(bench: Bench) -> None:
    bench.tree.add(7, resident_kib=96, CUDA_VISIBLE_DEVICES=FIRST, GPUD_RESERVATION="r-7")
    bench.script(gpu0={"foreign": [{"pid": 4242, "bytes": MIB}, {"pid": 7, "bytes": 2 * MIB}]})
    listed = bench.processes()
    assert listed is not None
    # A pid that the scenario calls foreign is foreign, real process or not.
    assert [(use.pid, use.used_bytes, use.claim) for use in listed] == [
        (4242, MIB, None),
        (7, 2 * MIB, None),
    ]
    assert bench.readings().memory_used_bytes == 3 * MIB


def test_a_full_card_shows_no_more_than_it_has(bench: Bench) -> None:
    bench.script(gpu0={"foreign": [{"pid": 1, "bytes": 10**12}]})
    assert bench.readings().memory_used_bytes == 6080 * MIB


def test_frees_may_lag(bench: Bench) -> None:
    bench.script(gpu0={"free_delay_seconds": 2.0})
    bench.tree.add(7, resident_kib=96, CUDA_VISIBLE_DEVICES=FIRST)
    assert bench.readings().memory_used_bytes == 100 * KIB
    bench.tree.remove(7)
    assert bench.readings().memory_used_bytes == 100 * KIB
    assert bench.processes() == ()
    bench.clock.advance(1.9)
    assert bench.readings().memory_used_bytes == 100 * KIB
    bench.clock.advance(0.2)
    assert bench.readings().memory_used_bytes == 0


def test_unsupported_fields_are_unknown(bench: Bench) -> None:
    bench.script(
        gpu0={"unsupported": ["power_watts", "memory_used_bytes", "processes", "nonsense"]}
    )
    readings = bench.readings()
    assert readings.power_watts is None
    assert readings.memory_used_bytes is None
    assert readings.temperature_celsius == 34
    assert bench.processes() is None


def test_any_reading_may_be_scripted_but_the_memory_in_use(bench: Bench) -> None:
    bench.script(
        gpu0={
            "remap_failed": True,
            "throttle_reasons": ["thermal", "power_cap"],
            "recovery_action": "reset",
            "pcie_sent_bytes_per_second": 1.5,
            "temperature_celsius": -5,
            "mig_enabled": True,
            "memory_used_bytes": 7,
        }
    )
    shown = bench.readings()
    assert (shown.remap_failed, shown.recovery_action) == (True, "reset")
    assert shown.throttle_reasons == ("thermal", "power_cap")
    assert (shown.pcie_sent_bytes_per_second, shown.temperature_celsius) == (1.5, -5.0)
    assert (shown.mig_enabled, shown.memory_used_bytes) == (True, 0)
    (told,) = bench.complaints
    assert "`gpu0` has the unknown key `memory_used_bytes`" in told
    assert bench.readings(SECOND).remap_failed is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("utilization_percent", 101),
        ("ecc_corrected_count", -1),
        ("throttle_reasons", ["heat"]),
        ("recovery_action", "pray"),
        ("xid", [0]),
        ("xid", 79),
        ("remap_failed", "yes"),
        ("pcie_width", 1.5),
    ],
)
def test_what_no_card_can_show_is_refused_whole(bench: Bench, key: str, value: object) -> None:
    bench.script(gpu0={"power_watts": 50})
    assert bench.readings().power_watts == 50
    bench.script(gpu0={"power_watts": 60, key: value})
    assert bench.readings().power_watts == 50
    assert key in bench.complaints[0]


def test_errors_are_reported_as_they_are_added(bench: Bench) -> None:
    assert bench.driver.alarms() == ()
    bench.script(gpu0={"xid": [79, 31]}, gpu1={"xid": [13], "hang": True})
    assert sorted(bench.driver.alarms()) == [(FIRST, 31), (FIRST, 79), (SECOND, 13)]
    assert bench.driver.alarms() == ()
    bench.script(gpu0={"xid": [79, 31, 31]})
    assert bench.driver.alarms() == ((FIRST, 31),)
    bench.script(gpu0={"xid": [79]}, gpu1={"xid": [13]})
    assert bench.driver.alarms() == ((SECOND, 13),)


def test_a_lost_card_comes_back_when_the_scenario_says_so(bench: Bench) -> None:
    bench.script(gpu0={"lost": True})
    with pytest.raises(DeviceLost):
        bench.readings()
    with pytest.raises(DeviceLost):
        bench.processes()
    assert bench.readings(SECOND).memory_used_bytes == 0
    bench.script()
    assert bench.readings().memory_used_bytes == 0


def test_a_hanging_card_blocks_until_the_scenario_lets_it_go(bench: Bench) -> None:
    bench.script(gpu0={"hang": True})
    answered = threading.Event()

    def read() -> None:
        bench.readings()
        answered.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert not answered.wait(0.2)
    bench.script()
    assert answered.wait(5)
    thread.join(5)


def test_an_absent_card_is_not_listed_and_may_be_put_back(bench: Bench) -> None:
    bench.script(gpu0={"absent": True})
    assert [info.uuid for info in bench.driver.devices()] == [SECOND]
    for call in (bench.readings, bench.processes):
        with pytest.raises(DeviceLost, match="no longer lists it"):
            call()
    bench.script()
    assert [info.uuid for info in bench.driver.devices()] == [FIRST, SECOND]
    assert bench.readings().memory_used_bytes == 0
