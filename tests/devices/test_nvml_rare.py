"""What NVML tells now and then: fields, links, errors; and cards that tell little or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpud.devices.nvml import RARE_EVERY_READS
from gpud.devices.snapshot import Readings
from tests.devices.standin import NvmlChild

FIRST = "GPU-standin-0"
# Numbers of fields, and the one that the stand-in has for the reasons of throttling.
ECC_DOUBLE, LINK_REPLAYS, REMAP_PENDING, RECOVERY, THROTTLING = 4, 52, 144, 230, 1000
NVLINK_SENT = 138
Open = Callable[..., NvmlChild]


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    return tmp_path / "fields"


@pytest.fixture
def xids(tmp_path: Path) -> Path:
    path = tmp_path / "xids"
    path.write_text("0 13\n")  # before anybody listened
    return path


@pytest.fixture
def open_nvml(nvml_library: Path, fields: Path, xids: Path) -> Iterator[Open]:
    opened: list[NvmlChild] = []

    def open_(machine: str = "healthy", library: Path = nvml_library, **more: str) -> NvmlChild:
        files = {"NVML_STANDIN_FIELDS": str(fields), "NVML_STANDIN_XIDS": str(xids)}
        opened.append(NvmlChild(library, machine, **files, **more))
        opened[-1].devices()
        return opened[-1]

    yield open_
    for child in opened:
        child.end()


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_rare_readings_are_read_now_and_then_the_others_each_time(
    open_nvml: Open, fields: Path
) -> None:
    driver = open_nvml()
    first = driver.readings(FIRST)
    append(fields, f"0 {ECC_DOUBLE} 3", f"0 {REMAP_PENDING} 1", f"0 {THROTTLING} 104")
    second = driver.readings(FIRST)
    assert second.throttle_reasons == ("hardware_slowdown", "thermal", "hardware_thermal")
    assert (second.ecc_uncorrected_count, second.remap_pending) == (0, False)
    between = [driver.readings(FIRST) for _ in range(RARE_EVERY_READS - 2)]
    assert {each.ecc_uncorrected_count for each in between} == {0}
    later = driver.readings(FIRST)
    assert (later.ecc_uncorrected_count, later.remap_pending) == (3, True)
    assert first.ecc_enabled is True


def test_what_the_bus_carries_is_told_by_its_counters(open_nvml: Open) -> None:
    driver = open_nvml()
    assert driver.readings(FIRST).pcie_sent_bytes_per_second is None  # one look at a counter
    for _ in range(RARE_EVERY_READS):
        readings = driver.readings(FIRST)
    # The stand-in sends 2 bytes a microsecond, and receives 3.
    assert readings.pcie_sent_bytes_per_second == pytest.approx(2e6, rel=0.05)
    assert readings.pcie_received_bytes_per_second == pytest.approx(3e6, rel=0.05)


def test_what_all_links_carry_is_told_by_their_counters(open_nvml: Open, fields: Path) -> None:
    driver = open_nvml()
    assert driver.readings(FIRST).nvlink_sent_bytes_per_second is None
    for _ in range(RARE_EVERY_READS):
        readings = driver.readings(FIRST)
    # Each of the stand-in's four sends 1 KiB a microsecond, and receives 2.
    assert readings.nvlink_sent_bytes_per_second == pytest.approx(4.096e9, rel=0.05)
    assert readings.nvlink_received_bytes_per_second == pytest.approx(8.192e9, rel=0.05)
    append(fields, f"0 {NVLINK_SENT} 5")  # it began anew
    for _ in range(RARE_EVERY_READS):
        readings = driver.readings(FIRST)
    assert readings.nvlink_sent_bytes_per_second is None


def test_a_counter_that_wrapped_tells_nothing_once(open_nvml: Open, fields: Path) -> None:
    driver = open_nvml()
    driver.readings(FIRST)
    append(fields, "0 197 5")
    sent = []
    for _ in range(2 * RARE_EVERY_READS):
        sent.append(driver.readings(FIRST).pcie_sent_bytes_per_second)
    assert sent == [None] * (2 * RARE_EVERY_READS - 1) + [0.0]


def test_links_and_their_errors(open_nvml: Open, fields: Path) -> None:
    driver = open_nvml()
    append(fields, f"0 {LINK_REPLAYS} 7")
    readings = driver.readings(FIRST)
    # The stand-in has four links, one of them down.
    assert (readings.nvlink_active_count, readings.nvlink_error_count) == (3, 7)


@pytest.mark.parametrize(
    ("number", "word"), [(0, "none"), (1, "reset"), (4, "drain_and_reset"), (99, None)]
)
def test_the_drivers_own_word(
    open_nvml: Open, fields: Path, number: int, word: str | None
) -> None:
    append(fields, f"0 {RECOVERY} {number}")
    assert open_nvml().readings(FIRST).recovery_action == word


def test_errors_are_told_once_and_those_of_all_cards(open_nvml: Open, xids: Path) -> None:
    driver = open_nvml()
    assert driver.alarms() == ()  # what came before is nobody's news
    append(xids, "3 79", "0 31", "3 79")
    assert driver.alarms() == (
        ("GPU-standin-3", 79), ("GPU-standin-0", 31), ("GPU-standin-3", 79),
    )  # fmt: skip
    assert driver.alarms() == ()


def test_an_error_has_its_card_read_in_whole(open_nvml: Open, fields: Path, xids: Path) -> None:
    driver = open_nvml()
    driver.readings(FIRST)
    driver.readings("GPU-standin-1")
    append(xids, "0 95")
    append(fields, f"0 {RECOVERY} 1", f"1 {RECOVERY} 1")
    assert driver.alarms() == ((FIRST, 95),)
    assert driver.readings(FIRST).recovery_action == "reset"
    assert driver.readings("GPU-standin-1").recovery_action == "none"


def test_a_lost_card_s_error_is_told(open_nvml: Open, xids: Path, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    driver = open_nvml(NVML_STANDIN_TRIGGER=str(trigger))
    trigger.write_text("lost 5")
    append(xids, "5 79")
    assert driver.alarms() == (("GPU-standin-5", 79),)


def test_who_tells_errors(open_nvml: Open, old_nvml_library: Path) -> None:
    assert all(info.tells_xids for info in open_nvml().devices())
    card, *slices = open_nvml("mig").devices()
    assert card.tells_xids
    assert not any(piece.tells_xids for piece in slices)
    old = open_nvml("maxwell", old_nvml_library)
    assert not old.devices()[0].tells_xids
    assert old.alarms() == ()


def test_a_card_that_does_not_say_now_whether_it_tells_errors_is_asked_again(
    open_nvml: Open, xids: Path, tmp_path: Path
) -> None:
    trigger = tmp_path / "trigger"
    trigger.write_text("deaf 5")
    driver = open_nvml(NVML_STANDIN_TRIGGER=str(trigger))
    assert [info.tells_xids for info in driver.devices()] == [True] * 5 + [False] + [True] * 2
    trigger.unlink()
    assert driver.devices()[5].tells_xids
    append(xids, "5 79")
    assert driver.alarms() == (("GPU-standin-5", 79),)


def test_a_card_that_refuses_everything_is_known_and_asked_no_more(
    open_nvml: Open, tmp_path: Path
) -> None:
    refusals = tmp_path / "refusals"
    driver = open_nvml("sullen", NVML_STANDIN_REFUSALS=str(refusals))
    (info,) = driver.devices()
    assert (info.memory_total_bytes, info.tells_xids) == (None, False)
    assert driver.readings(info.uuid) == Readings()
    assert driver.processes(info.uuid) is None
    # Its memory is what grants need: that alone is asked for each time, unless refused for good.
    before = refusals.read_text()
    for _ in range(3 * RARE_EVERY_READS):
        assert driver.readings(info.uuid) == Readings()
        assert driver.processes(info.uuid) is None
    assert refusals.read_text() == before
