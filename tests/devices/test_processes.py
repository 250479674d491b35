"""The process table: who claims what, and what is read how often."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.devices.processes import REREAD_SECONDS, YOUNG_SECONDS, ProcessTable
from tests.devices.proc_tree import TICKS_PER_SECOND, ProcTree, hog

NOW = 1000.0
MIB = 1024**2


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path)


def scanned(tree: ProcTree, now: float = NOW) -> ProcessTable:
    table = ProcessTable(tree.proc)
    table.scan(now)
    return table


def claim(table: ProcessTable, pid: int) -> str | None:
    record = table.find(pid)
    assert record is not None
    return record.claim


def test_a_process_is_described(tree: ProcTree) -> None:
    tree.add(7, name="odd (name) 1", started_seconds=2.0, CUDA_VISIBLE_DEVICES="SIM-a, SIM-b,")
    record = scanned(tree).find(7)
    assert record is not None
    assert record.name == "odd (name) 1"
    assert record.parent_pid == 1
    assert record.start_time == 2 * TICKS_PER_SECOND
    assert record.visible_devices == ("SIM-a", "SIM-b")
    assert record.claim is None


def test_a_claim_is_the_whole_variable_and_only_it(tree: ProcTree) -> None:
    tree.add(7, GPUD_RESERVATION="r-7", HOME="/")
    tree.add(8, NOT_GPUD_RESERVATION="r-8")
    tree.add(9, GPUD_RESERVATION="")
    table = scanned(tree)
    assert [claim(table, pid) for pid in (7, 8, 9)] == ["r-7", None, None]
    assert [record.pid for record in table.claimed()] == [7]


def test_the_full_resource_name_is_the_same_claim(tree: ProcTree) -> None:
    tree.add(7, GPUD_RESERVATION="reservations/r-7")
    tree.add(8, parent=7)
    tree.add(9, GPUD_RESERVATION="reservations/")
    table = scanned(tree)
    assert [claim(table, pid) for pid in (7, 8, 9)] == ["r-7", "r-7", None]


def test_descendants_have_the_claim_of_the_nearest_claimed_ancestor(tree: ProcTree) -> None:
    # Pids wrap: a child's may be below its parent's.
    tree.add(100, GPUD_RESERVATION="r-outer")
    tree.add(50, parent=100, PATH="/bin")
    tree.add(60, parent=50, GPUD_RESERVATION="r-inner")
    tree.add(40, parent=60)
    table = scanned(tree)
    assert [claim(table, pid) for pid in (50, 60, 40)] == ["r-outer", "r-inner", "r-inner"]


def test_descent_survives_the_end_of_the_parent(tree: ProcTree) -> None:
    tree.add(100, GPUD_RESERVATION="r-1")
    tree.add(101, parent=100, started_seconds=NOW)
    table = scanned(tree)
    tree.remove(100)
    table.scan(NOW + 1)
    assert claim(table, 101) == "r-1"
    assert table.find(100) is None


def test_a_loop_of_parents_ends(tree: ProcTree) -> None:
    tree.add(10, parent=11)
    tree.add(11, parent=10)
    assert scanned(tree).claimed() == ()


def test_the_exec_of_a_young_process_is_seen_at_the_next_scan(tree: ProcTree) -> None:
    tree.add(7, started_seconds=NOW - 1)
    table = scanned(tree)
    tree.exec(7, GPUD_RESERVATION="r-7", CUDA_VISIBLE_DEVICES="SIM-a")
    table.scan(NOW)
    assert claim(table, 7) == "r-7"
    assert [record.pid for record in table.attached_to("SIM-a")] == [7]


def test_an_old_process_is_read_again_only_after_a_minute(tree: ProcTree) -> None:
    tree.add(7)
    table = scanned(tree)
    tree.exec(7, GPUD_RESERVATION="r-7")
    table.scan(NOW + REREAD_SECONDS - 1)
    assert claim(table, 7) is None
    table.scan(NOW + REREAD_SECONDS)
    assert claim(table, 7) == "r-7"


def test_a_real_exec_of_an_old_process_is_seen_with_the_same_size_of_environment() -> None:
    table, boottime = ProcessTable(), SystemClock().now().boottime
    script = "echo begun; read line; exec env GPUD_RESERVATION=r-2 sh -c 'echo went on; read line'"
    with subprocess.Popen(
        ["sh", "-c", script],
        env={"PATH": os.environ["PATH"], "GPUD_RESERVATION": "r-1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        table.scan(boottime + YOUNG_SECONDS)
        assert claim(table, process.pid) == "r-1"
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        table.scan(boottime + YOUNG_SECONDS + REREAD_SECONDS)
        assert claim(table, process.pid) == "r-2"
        process.stdin.close()


def test_what_cannot_be_read_is_unknown(tree: ProcTree) -> None:
    tree.add(7, GPUD_RESERVATION="r-7")
    (tree.proc / "7/environ").unlink()
    tree.add(8)
    (tree.proc / "8/stat").write_text("8 (cut")
    table = scanned(tree)
    assert claim(table, 7) is None
    assert table.find(8) is None
    assert table.find(9) is None
    assert table.resident_bytes(9) is None


def test_resident_memory_leaves_file_pages_out(tree: ProcTree) -> None:
    tree.add(7, resident_kib=1000)
    assert scanned(tree).resident_bytes(7) == (1000 + 4) * 1024


def test_real_processes() -> None:
    table = ProcessTable()
    clock = SystemClock()
    with hog(64 * MIB, GPUD_RESERVATION="r-real", CUDA_VISIBLE_DEVICES="SIM-x-0") as pid:
        table.scan(clock.now().boottime)
        assert claim(table, pid) == "r-real"
        assert [record.pid for record in table.attached_to("SIM-x-0")] == [pid]
        resident = table.resident_bytes(pid)
        assert resident is not None
        assert 64 * MIB <= resident < 96 * MIB
    table.scan(clock.now().boottime)
    assert table.find(pid) is None
    assert table.resident_bytes(pid) is None


def test_a_real_child_that_clears_its_environment_keeps_the_claim() -> None:
    script = "env -i /bin/sh -c 'echo $$; read x' <&3 & wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec 3<&0; {script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"GPUD_RESERVATION": "r-parent", "PATH": "/usr/bin:/bin"},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        table = ProcessTable()
        table.scan(SystemClock().now().boottime)
        assert claim(table, pid) == "r-parent"
        parent.communicate(b"\n", timeout=60)


def test_file_pages_count_only_when_they_are_locked(tmp_path: Path) -> None:
    tree = ProcTree(tmp_path)
    tree.add(7)
    table = ProcessTable(tree.proc)
    for locked_kib, counted_kib in ((0, 0), (300, 300), (5000, 999)):
        tree.hold(7, 96, locked_kib)
        assert table.resident_bytes(7) == (96 + 4 + counted_kib) * 1024
