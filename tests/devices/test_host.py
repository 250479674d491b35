"""The host as a device: what counts as total, ours and foreign."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.devices.driver import DeviceLost
from gpud.devices.host import FOREIGN_SMOOTHING_SECONDS, HostDriver, host_uuid
from gpud.devices.machine.probe import HostProbe
from gpud.devices.processes import ProcessTable
from tests.devices.proc_tree import ProcTree
from tests.fakes.clock import FakeClock

KIB = 1024
UUID = "HOST-0123456789ab"


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    tree = ProcTree(tmp_path)
    tree.meminfo(total_kib=1000, available_kib=700)
    return tree


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def driver_of(tree: ProcTree, clock: FakeClock) -> HostDriver:
    table = ProcessTable(tree.proc)
    table.scan(clock.now().boottime)
    return HostDriver(UUID, table, clock, tree.root)


def total_kib(driver: HostDriver) -> float:
    (info,) = driver.devices()
    return (info.memory_total_bytes or 0) / KIB


def used_kib(driver: HostDriver) -> float:
    return (driver.readings(UUID).memory_used_bytes or 0) / KIB


def test_used_is_what_is_not_available(tree: ProcTree, clock: FakeClock) -> None:
    driver = driver_of(tree, clock)
    assert (total_kib(driver), used_kib(driver)) == (1000, 300)


def test_claimed_processes_are_listed_and_the_rest_is_left_unexplained(
    tree: ProcTree, clock: FakeClock
) -> None:
    tree.add(7, resident_kib=96, GPUD_RESERVATION="r-7")
    tree.add(8, resident_kib=50)
    driver = driver_of(tree, clock)
    processes = driver.processes(UUID)
    assert processes is not None
    assert [(use.pid, use.claim, use.used_bytes) for use in processes] == [(7, "r-7", 100 * KIB)]
    assert used_kib(driver) == 300


def test_only_what_is_foreign_is_smoothed(tree: ProcTree, clock: FakeClock) -> None:
    tree.add(7, resident_kib=96, GPUD_RESERVATION="r-7")
    driver = driver_of(tree, clock)
    assert used_kib(driver) == 300
    # Ours grows by 200 and foreign by 100: the former shows at once, the latter bit by bit.
    tree.hold(7, 296)
    tree.meminfo(total_kib=1000, available_kib=400)
    clock.advance(0.0)
    assert used_kib(driver) == 500
    clock.advance(FOREIGN_SMOOTHING_SECONDS)
    assert used_kib(driver) == pytest.approx(500 + 63.2, abs=0.2)
    clock.advance(60)
    assert used_kib(driver) == pytest.approx(600, abs=0.2)


def test_the_end_of_our_process_gives_its_bytes_back_at_once(
    tree: ProcTree, clock: FakeClock
) -> None:
    tree.add(7, resident_kib=196, GPUD_RESERVATION="r-7")
    driver = driver_of(tree, clock)
    assert used_kib(driver) == 300
    tree.remove(7)
    tree.meminfo(total_kib=1000, available_kib=900)
    assert used_kib(driver) == 100
    assert driver.processes(UUID) == ()


@pytest.mark.parametrize(
    ("membership", "folder", "limit", "usage", "cold"),
    [
        ("0::/own/inner", "sys/fs/cgroup/own/inner", "memory.max", "memory.current", ""),
        (
            "4:memory:/own/inner",
            "sys/fs/cgroup/memory/own/inner",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_",
        ),
    ],
    ids=["v2", "v1"],
)
def test_the_cgroup_limits_the_host(
    tree: ProcTree,
    clock: FakeClock,
    membership: str,
    folder: str,
    limit: str,
    usage: str,
    cold: str,
) -> None:
    tree.write("proc/self/cgroup", f"{membership}\n")
    outer = str(Path(folder).parent)
    tree.write(f"{folder}/{limit}", "max\n" if limit == "memory.max" else str(2**63 - 4096))
    tree.write(f"{outer}/{limit}", str(500 * KIB))
    tree.write(f"{outer}/{usage}", str(200 * KIB))
    tree.write(f"{outer}/memory.stat", f"anon 1\n{cold}inactive_file {80 * KIB}\n")
    driver = driver_of(tree, clock)
    assert (total_kib(driver), used_kib(driver)) == (500, 120)


def test_a_cgroup_without_a_limit_changes_nothing(tree: ProcTree, clock: FakeClock) -> None:
    tree.write("proc/self/cgroup", "0::/\n")
    tree.write("sys/fs/cgroup/memory.max", "max\n")
    assert total_kib(driver_of(tree, clock)) == 1000


def test_unreadable_memory_is_unknown(tree: ProcTree, clock: FakeClock) -> None:
    (tree.proc / "meminfo").unlink()
    driver = driver_of(tree, clock)
    assert driver.devices()[0].memory_total_bytes is None
    assert driver.readings(UUID).memory_used_bytes is None


def test_another_host_is_lost(tree: ProcTree, clock: FakeClock) -> None:
    with pytest.raises(DeviceLost):
        driver_of(tree, clock).readings("HOST-other")


def test_the_uuid_stays_with_the_machine_id(tree: ProcTree) -> None:
    assert host_uuid(tree.root) == host_uuid(tree.root)
    by_name = host_uuid(tree.root)
    tree.write("etc/machine-id", "0035\n")
    assert host_uuid(tree.root) != by_name
    # printf 0035 | sha256sum
    assert host_uuid(tree.root) == "HOST-692296a295db"


def test_host_readings(tree: ProcTree) -> None:
    tree.write("proc/stat", "cpu 100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1\n")
    probe = HostProbe(tree.root)
    tree.write("proc/stat", "cpu 160 0 65 800 75 0 0 0 0 0\n")
    readings = probe.read(0.0)
    assert readings.cpu_percent == 75.0
    assert readings.memory_total_bytes == 1000 * KIB
    assert readings.memory_available_bytes == 700 * KIB
    assert (readings.swap_total_bytes, readings.swap_used_bytes) == (100 * KIB, 40 * KIB)
    assert probe.read(2.0).cpu_percent is None  # no time has passed


def test_what_the_machine_does_not_tell_is_unknown(tree: ProcTree) -> None:
    readings = HostProbe(tree.root).read(0.0)
    assert readings.memory_some_percent is None
    assert readings.memory_full_percent is None
    assert readings.memory_cgroup_events is None


def test_memory_stalls_are_read_from_psi(tree: ProcTree) -> None:
    tree.write(
        "proc/pressure/memory",
        "some avg10=12.34 avg60=1.00 avg300=0.00 total=7\n"
        "full avg10=3.00 avg60=0.50 avg300=0.00 total=5\n",
    )
    readings = HostProbe(tree.root).read(0.0)
    assert (readings.memory_some_percent, readings.memory_full_percent) == (12.34, 3.0)


@pytest.mark.parametrize(
    ("membership", "files", "counted"),
    [
        (
            "0::/own",
            {"own/memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"},
            {"high": 1, "max": 2, "oom": 3, "oom_kill": 4},
        ),
        (
            "4:memory:/own",
            {
                "memory/own/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                "memory/own/memory.failcnt": "9\n",
            },
            {"oom_kill": 2, "failcnt": 9},
        ),
    ],
    ids=["v2", "v1"],
)
def test_counters_of_the_own_cgroup(
    tree: ProcTree, membership: str, files: dict[str, str], counted: dict[str, int]
) -> None:
    tree.write("proc/self/cgroup", f"{membership}\n")
    for path, text in files.items():
        tree.write(f"sys/fs/cgroup/{path}", text)
    assert HostProbe(tree.root).read(0.0).memory_cgroup_events == counted


def test_this_host_shows_its_stalls_where_its_kernel_does() -> None:
    told = Path("/proc/pressure/memory").exists()
    assert (HostProbe().read(0.0).memory_some_percent is not None) == told
