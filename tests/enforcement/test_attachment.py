"""What may be attached: every refusal names the field and the way out."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from gpud.clock import Moment, SystemClock
from gpud.devices.attached import AttachmentTable
from gpud.devices.processes import ProcessTable, read_stat
from gpud.enforcement.attachment import (
    SETTLING_SECONDS,
    attachment_of,
    check_cgroup,
    look_up,
    table_of,
)
from gpud.errors import OptionInvalid
from gpud.ledger.reservation import Attachment, ReservationState
from gpud.promises.requests import Call
from tests.devices.proc_tree import hog
from tests.enforcement.office import GPU, Office, process
from tests.enforcement.test_relations import held

NOW = Moment(boot_id="boot-1", boottime=2.0, wall=5.0)


def refused(field: str, problem: str) -> pytest.RaisesExc[OptionInvalid]:
    return pytest.raises(OptionInvalid, match=rf"(?s)cannot accept {field}: .*{problem}")


def test_a_process_is_known_by_its_start() -> None:
    with hog() as pid:
        found = attachment_of(pid, "", NOW)
        start_time = read_stat(pid).start_time
        assert found == Attachment(wall=5.0, boottime=2.0, pid=pid, start_time=start_time)


def test_no_such_pid() -> None:
    for pid in (0, -1, -(2**31)):
        with refused("pid", "above 0"):
            look_up(pid)
    with hog() as pid:
        pass
    with refused("pid", "no such process"):
        look_up(pid)
    with refused("pid", "no such process"):
        look_up(2**31 - 1)


def test_nobody_attaches_the_daemon_or_the_first_process() -> None:
    with refused("pid", "ancestor of everything"):
        look_up(1)
    with refused("pid", "gpud itself"):
        look_up(os.getpid())


def test_a_kernel_thread_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "stat").write_text(f"77 (kworker/0:1) I 2{' 0' * 17} 5 0\n")
    (folder / "status").write_text("Name:\tkworker\nTgid:\t77\n")
    with refused("pid", "kworker/0:1 is a kernel thread"):
        look_up(77, tmp_path)


def test_a_thread_is_refused_with_its_process() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(20,))
    thread.start()
    try:
        with refused("pid", f"a thread of process {os.getpid()}"):
            look_up(thread.native_id or 0)
    finally:
        go.set()
        thread.join()


def test_what_has_ended_is_refused() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with refused("pid", "has ended"):
            look_up(ended.pid)


def test_exactly_one_of_the_two() -> None:
    with refused("pid", "one of the two"):
        attachment_of(None, "", NOW)
    with refused("cgroup", "one of the two"):
        attachment_of(7, "/x", NOW)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("docker/abc", "not an absolute path"),
        ("/", "root of all"),
        ("//", "root of all"),
        ("/a/../b", "relative parts"),
        ("/a//b", "empty or relative"),
        ("/a\nb", "cannot be printed"),
        ("/a\0b", "cannot be printed"),
        ("/" + "a" * 5000, "at most 4096"),
        ("/no-such-cgroup-anywhere", "no such cgroup"),
    ],
)
def test_a_cgroup_that_cannot_be(path: str, problem: str) -> None:
    with refused("cgroup", problem):
        check_cgroup(path)


def fake_proc(tmp_path: Path, own: str) -> Path:
    """A /proc of a host with one v2 and one v1 hierarchy, the latter seen from a container."""
    folder = tmp_path / "proc" / "self"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(own)
    (folder / "mountinfo").write_text(
        f"30 23 0:26 / {tmp_path}/v2 rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        f"33 30 0:30 /docker/abc {tmp_path}/pids ro,nosuid - cgroup cgroup rw,pids\n"
        f"34 23 0:31 / {tmp_path} rw - tmpfs tmpfs rw\n"
    )
    (tmp_path / "v2/system.slice/x.scope").mkdir(parents=True)
    (tmp_path / "pids/inner").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return folder.parent


def test_a_cgroup_of_either_version(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, "0::/system.slice/gpud.service\n")
    assert check_cgroup("/system.slice/x.scope", proc) == "/system.slice/x.scope"
    assert check_cgroup("/system.slice/x.scope/", proc) == "/system.slice/x.scope"
    assert check_cgroup("/docker/abc/inner", proc) == "/docker/abc/inner"
    for path in ("/elsewhere", "/inner", "/docker/abc/other", "/docker"):
        with refused("cgroup", "no such cgroup"):
            check_cgroup(path, proc)


def test_a_cgroup_with_the_daemon_in_it_is_refused(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, "4:memory:/\n0::/system.slice/x.scope/deeper\n")
    for path in ("/system.slice", "/system.slice/x.scope"):
        with refused("cgroup", "gpud itself runs in it"):
            check_cgroup(path, proc)


@pytest.fixture
def real_cgroup() -> Iterator[tuple[str, Path]]:
    """A cgroup of our own in some mounted hierarchy that lets us make one."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        root, mount = fields.split()[3:5]
        path = Path(mount) / f"gpud-test-{os.getpid()}"
        if rest.split()[0] in {"cgroup", "cgroup2"} and root == "/":
            try:
                path.mkdir()
            except OSError:
                continue
            yield f"/{path.name}", path
            path.rmdir()
            return
    pytest.skip("no cgroup hierarchy of this host lets us make one: it needs root")


def test_a_real_cgroup_and_who_is_in_it(real_cgroup: tuple[str, Path]) -> None:
    name, folder = real_cgroup
    found = attachment_of(None, name, NOW)
    assert found == Attachment(wall=5.0, boottime=2.0, cgroup=name)
    with hog() as pid:
        (folder / "cgroup.procs").write_text(str(pid))
        table = ProcessTable()
        table.attach(AttachmentTable(cgroups=((found.cgroup, "r-c"),)))
        table.scan(SystemClock().now().boottime)
        record = table.find(pid)
        assert record is not None
        assert (record.claim, record.attached) == ("r-c", True)


def at(wall: float, pid: int | None = None, cgroup: str = "") -> Attachment:
    return Attachment(wall=wall, pid=pid, start_time=pid and pid * 10, cgroup=cgroup)


def test_the_table_has_what_is_booked_and_the_newer_of_two() -> None:
    older = structs.replace(held("a", GPU), attachments=(at(1.0, 7), at(3.0, cgroup="/x")))
    newer = structs.replace(
        held("b", GPU), attachments=(at(2.0, 7), at(2.0, cgroup="/x"), at(2.0, 8))
    )
    ended = structs.replace(
        held("c", GPU, state=ReservationState.RELEASED), attachments=(at(9.0, 7), at(9.0, 9))
    )
    assert table_of([newer, older, ended]) == AttachmentTable(
        processes=((7, 70, "b"), (8, 80, "b")), cgroups=(("/x", "a"),)
    )


def test_the_newer_attachment_is_the_later_one_whatever_the_date_was_set_to() -> None:
    before = Attachment(wall=9000.0, boottime=10.0, pid=7, start_time=70)
    after = Attachment(wall=5400.0, boottime=20.0, pid=7, start_time=70)
    old = structs.replace(held("old", GPU), attachments=(before,))
    new = structs.replace(held("new", GPU), attachments=(after,))
    for order in ([old, new], [new, old]):
        assert table_of(order).processes == ((7, 70, "new"),)


async def test_after_a_reboot_a_cgroup_of_before_is_the_older_one(office: Office) -> None:
    office.clock.advance(9000.0)
    office.show()
    for id_ in ("a", "b"):
        await office.reserve(id_, ttl_seconds=36_000.0)
    await attach_cgroup(office, "a")
    office.clock.reboot()
    office.promises.restore()
    # Once more: its first restore put the promise on this boot's clock.
    await office.events()
    office.promises.restore()
    await attach_cgroup(office, "b")
    durable = office.promises.durable
    assert table_of(durable.attached.values()).cgroups == (("/x", "b"),)


async def attach_cgroup(office: Office, id_: str) -> None:
    now = office.clock.now()
    attachment = Attachment(wall=now.wall, boottime=now.boottime, cgroup="/x")
    await office.promises.attach(id_, None, lambda: attachment, Call(method="AttachProcess"))


async def test_only_promises_with_attachments_are_gone_through(office: Office) -> None:
    await office.reserve("a")
    assert not office.promises.durable.attached
    await attach_cgroup(office, "a")
    assert set(office.promises.durable.attached) == {"a"}
    await office.release("a")
    office.show()
    await office.promises.freed("a")
    assert not office.promises.durable.attached


async def test_the_sampler_is_told_what_is_durable_and_only_changes(office: Office) -> None:
    await office.reserve("a")
    office.attachments.refresh()
    assert office.tables == []
    await office.promises.attach("a", None, lambda: at(1.0, 7), Call(method="AttachProcess"))
    office.attachments.refresh()
    office.attachments.refresh()
    assert office.tables == [AttachmentTable(processes=((7, 70, "a"),))]
    assert office.attachments.settled_boottime == office.clock.boottime + SETTLING_SECONDS
    # A list from before knows it too, as far as it was attached by pid.
    listed = replace(office.samples["gpu0"], processes=(process(7), process(8)))
    told = office.attachments.applied(listed).processes or ()
    assert [(each.claim, each.attached) for each in told] == [("a", True), (None, False)]
    await office.release("a")
    office.show()
    await office.promises.freed("a")
    office.attachments.refresh()
    assert office.tables[-1] == AttachmentTable()
