"""What is attached by pid or cgroup, and what descends from it, is the reservation's."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.devices.attached import AttachmentTable
from gpud.devices.host import HostDriver
from gpud.devices.processes import ProcessTable, read_stat
from gpud.devices.sampling.sampler import Sampler
from tests.devices.proc_tree import TICKS_PER_SECOND, ProcTree, hog
from tests.devices.test_sampler import settings
from tests.devices.watching import UNHURRIED, Watcher, helpers, running, sample

NOW = 1000.0


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path)


def scanned(tree: ProcTree, attachments: AttachmentTable, now: float = NOW) -> ProcessTable:
    table = ProcessTable(tree.proc)
    table.attach(attachments)
    table.scan(now)
    return table


def owner(table: ProcessTable, pid: int) -> tuple[str | None, bool]:
    record = table.find(pid)
    assert record is not None
    return record.claim, record.attached


def by_pid(*attached: tuple[int, int, str]) -> AttachmentTable:
    return AttachmentTable(processes=attached)


def test_a_process_and_its_descendants(tree: ProcTree) -> None:
    tree.add(7, started_seconds=2.0)
    tree.add(8, parent=7, started_seconds=3.0)
    tree.add(9, parent=8, started_seconds=4.0)
    tree.add(10, started_seconds=4.0)
    table = scanned(tree, by_pid((7, 2 * TICKS_PER_SECOND, "r-7")))
    assert [owner(table, pid) for pid in (7, 8, 9)] == [("r-7", True)] * 3
    assert owner(table, 10) == (None, False)
    assert sorted(record.pid for record in table.claimed()) == [7, 8, 9]


def test_another_process_of_that_pid_is_not_it(tree: ProcTree) -> None:
    tree.add(7, started_seconds=2.0)
    assert owner(scanned(tree, by_pid((7, TICKS_PER_SECOND, "r-7"))), 7) == (None, False)


def test_it_goes_before_the_environment_and_gives_it_back(tree: ProcTree) -> None:
    tree.add(7, GPUD_RESERVATION="r-env", CUDA_VISIBLE_DEVICES="SIM-a")
    tree.add(8, parent=7, GPUD_RESERVATION="r-env")
    table = scanned(tree, by_pid((7, 0, "r-7")))
    assert [owner(table, pid) for pid in (7, 8)] == [("r-7", True)] * 2
    assert [record.claim for record in table.attached_to("SIM-a")] == ["r-7"]
    table.attach(AttachmentTable())
    table.scan(NOW + 1)
    assert [owner(table, pid) for pid in (7, 8)] == [("r-env", False)] * 2


def test_the_nearest_attached_ancestor_counts(tree: ProcTree) -> None:
    tree.add(7)
    tree.add(8, parent=7)
    tree.add(9, parent=8)
    table = scanned(tree, by_pid((7, 0, "r-7"), (8, 0, "r-8")))
    assert [owner(table, pid)[0] for pid in (7, 8, 9)] == ["r-7", "r-8", "r-8"]


def test_descent_survives_the_end_of_the_attached_process(tree: ProcTree) -> None:
    tree.add(7, started_seconds=NOW - 5)
    tree.add(8, parent=7, started_seconds=NOW - 4)
    attached = by_pid((7, int(NOW - 5) * TICKS_PER_SECOND, "r-7"))
    table = scanned(tree, attached)
    tree.remove(7)
    table.scan(NOW + 1)
    assert owner(table, 8) == ("r-7", True)
    # Whatever gets the pid of its parent is not its parent, attached or not.
    tree.add(7, started_seconds=NOW)
    table.attach(by_pid((7, int(NOW) * TICKS_PER_SECOND, "r-other")))
    table.scan(NOW + 2)
    assert owner(table, 7) == ("r-other", True)
    assert owner(table, 8) == (None, False)


def test_a_process_that_is_looked_up_between_scans_is_known(tree: ProcTree) -> None:
    tree.add(7)
    table = scanned(tree, by_pid((7, 0, "r-7")))
    tree.add(8, parent=7)
    assert owner(table, 8) == ("r-7", True)


CGROUPS = "12:pids:/docker/abc\n4:memory:/docker/abc/inner\n0::/system.slice/x.scope\n"


@pytest.mark.parametrize(
    ("cgroup", "is_in"),
    [
        ("/docker/abc", True),
        ("/docker", True),
        ("/system.slice/x.scope", True),
        ("/docker/ab", False),
        ("/docker/abc/inner/deeper", False),
        ("/abc", False),
    ],
)
def test_a_cgroup_of_any_hierarchy(tree: ProcTree, cgroup: str, is_in: bool) -> None:
    tree.add(7)
    tree.write("proc/7/cgroup", CGROUPS)
    table = scanned(tree, AttachmentTable(cgroups=((cgroup, "r-c"),)))
    assert owner(table, 7) == (("r-c", True) if is_in else (None, False))


def test_the_deepest_cgroup_counts_and_a_pid_goes_before_it(tree: ProcTree) -> None:
    tree.add(7)
    tree.add(8, parent=7)
    for pid in (7, 8):
        tree.write(f"proc/{pid}/cgroup", CGROUPS)
    cgroups = (("/docker", "r-out"), ("/docker/abc/inner", "r-in"))
    table = scanned(tree, AttachmentTable(cgroups=cgroups))
    assert owner(table, 8) == ("r-in", True)
    table = scanned(tree, AttachmentTable(cgroups=cgroups, processes=((7, 0, "r-7"),)))
    assert owner(table, 8) == ("r-7", True)


def test_no_cgroup_is_read_while_none_is_attached(tree: ProcTree) -> None:
    tree.add(7)
    (tree.proc / "7" / "cgroup").mkdir()  # to read this would fail
    assert owner(scanned(tree, by_pid((7, 0, "r-7"))), 7) == ("r-7", True)


def test_a_real_process_is_on_the_host_as_attached() -> None:
    clock = SystemClock()
    with hog(1024**2, PATH="/bin") as pid:
        table = ProcessTable()
        table.attach(by_pid((pid, read_stat(pid).start_time, "r-host")))
        table.scan(clock.now().boottime)
        listed = HostDriver("HOST-0", table, clock).processes("HOST-0")
    assert listed is not None
    assert [(u.claim, u.attached) for u in listed if u.pid == pid] == [("r-host", True)]


def test_a_real_child_that_leaves_its_session_stays_attached() -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", "setsid env -i /bin/sh -c 'echo $$; exec sleep 200'"],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        table = ProcessTable()
        table.attach(by_pid((parent.pid, read_stat(parent.pid).start_time, "r-tree")))
        table.scan(SystemClock().now().boottime)
        assert owner(table, child) == ("r-tree", True)
        parent.kill()
        parent.wait(60)
        table.scan(SystemClock().now().boottime)
        assert owner(table, child) == ("r-tree", True)
        os.kill(child, signal.SIGKILL)


async def test_the_sampling_process_is_told_and_told_again(tmp_path: Path) -> None:
    watcher = Watcher()
    sampler = Sampler(settings(tmp_path), SystemClock(), watcher.publish, UNHURRIED)

    def holds(alias: str, pid: int) -> tuple[str | None, bool]:
        listed = sample(watcher.snapshots[-1], alias).processes or ()
        return next(((u.claim, u.attached) for u in listed if u.pid == pid), (None, False))

    with hog(1024**2, CUDA_VISIBLE_DEVICES="SIM-gtx-1080-ti-2") as pid:
        start_time = read_stat(pid).start_time
        async with running(sampler):
            await watcher.until(lambda s: s.complete)
            listed = sample(watcher.snapshots[-1], "gpu2").processes or ()
            assert pid in [use.pid for use in listed]
            assert holds("gpu2", pid) == (None, False)
            # More than a pipe holds: nothing waits for it, and nothing of it is lost.
            strangers = tuple((5_000_000 + n, 1, f"r-{n}") for n in range(20_000))
            sampler.attach(AttachmentTable(processes=(*strangers, (pid, start_time, "r-late"))))
            await watcher.until(
                lambda _: holds("gpu2", pid) == holds("host", pid) == ("r-late", True)
            )
            (helper,) = helpers()
            os.kill(helper, signal.SIGKILL)
            await watcher.until(lambda _: helpers() not in ([], [helper]))
            await watcher.until(lambda _: holds("gpu2", pid) == ("r-late", True))
            sampler.attach(AttachmentTable())
            await watcher.until(lambda _: holds("gpu2", pid) == (None, False))
