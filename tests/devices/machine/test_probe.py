"""The host beside its devices: stalls, memory nodes, and files that are kept open."""

from __future__ import annotations

from pathlib import Path

from gpud.devices.machine.kept import KeptFile
from gpud.devices.machine.probe import EVERY_SECONDS, NODES_EVERY, HostProbe
from gpud.devices.snapshot import Disk, NodeMemory

KIB = 1024


def node(root: Path, number: int, total_kib: int, free_kib: int) -> None:
    folder = root / f"sys/devices/system/node/node{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meminfo").write_text(
        f"Node {number} MemTotal:       {total_kib} kB\nNode {number} MemFree:  {free_kib} kB\n"
    )


def test_stalls_of_cpu_and_disk(tmp_path: Path) -> None:
    folder = tmp_path / "proc/pressure"
    folder.mkdir(parents=True)
    (folder / "cpu").write_text("some avg10=31.50 avg60=1.00 avg300=0.00 total=7\n")
    (folder / "io").write_text(
        "some avg10=4.00 avg60=1.00 avg300=0.00 total=7\n"
        "full avg10=2.25 avg60=1.00 avg300=0.00 total=7\n"
    )
    readings = HostProbe(tmp_path).read(0.0)
    assert readings.cpu_some_percent == 31.5
    assert (readings.io_some_percent, readings.io_full_percent) == (4.0, 2.25)
    assert readings.memory_some_percent is None


def test_the_memory_of_nodes_is_read_now_and_then(tmp_path: Path) -> None:
    node(tmp_path, 0, 1000, 400)
    node(tmp_path, 10, 2000, 500)
    node(tmp_path, 2, 3000, 600)
    probe = HostProbe(tmp_path)
    first = probe.read(0.0).nodes
    assert [each.node for each in first] == [0, 2, 10]
    assert first[0] == NodeMemory(node=0, total_bytes=1000 * KIB, free_bytes=400 * KIB)
    node(tmp_path, 0, 1000, 300)
    times = [EVERY_SECONDS * turn for turn in range(1, NODES_EVERY + 1)]
    later = [probe.read(time).nodes[0].free_bytes // KIB for time in times]
    assert later == [400] * (NODES_EVERY - 1) + [300]


def test_disks_are_told_as_they_are_handed_in(tmp_path: Path) -> None:
    disk = Disk(what="state", path="/s", total_bytes=2, free_bytes=1)
    assert HostProbe(tmp_path).read(0.0, (disk,)).disks == (disk,)


def test_a_file_that_is_kept_is_read_anew_and_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = KeptFile(path)
    assert file.read() == b""
    path.write_text("one")
    assert file.read() == b"one"
    path.write_text("two, longer")
    assert file.read() == b"two, longer"
    file.close()
    path.unlink()
    assert file.read() == b""


def test_what_the_kernel_reckons_every_two_seconds_is_not_read_more_often(tmp_path: Path) -> None:
    folder = tmp_path / "proc/pressure"
    folder.mkdir(parents=True)
    stalls, meminfo = folder / "memory", tmp_path / "proc/meminfo"
    probe = HostProbe(tmp_path)
    shown = []
    for second in range(4):
        stalls.write_text(f"some avg10={second}.00 avg60=0.00 avg300=0.00 total=7\n")
        meminfo.write_text(f"MemAvailable: {second} kB\n")
        readings = probe.read(float(second))
        available = (readings.memory_available_bytes or 0) // KIB
        shown.append((readings.memory_some_percent, available))
    assert shown == [(0.0, 0), (0.0, 1), (2.0, 2), (2.0, 3)]
