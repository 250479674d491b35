"""The patrol: told once, ended once, and nobody ended who is not proved."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.devices.processes import read_stat
from gpud.devices.snapshot import DeviceKind, Health, ProcessKind, ProcessUse
from gpud.enforcement import proof
from gpud.enforcement.patrol import GRACE_SECONDS, OVERUSE, TRESPASS, Patrol, PatrolSeams
from gpud.enforcement.proof import INSTANCE_TOKEN, Gone, Held, Unproved, hold
from gpud.instances.tree.identity import TOKEN_NAME
from gpud.ledger.reservation import Attachment
from gpud.promises.requests import Call
from tests.devices.proc_tree import hog
from tests.enforcement.office import GIB, GPU, Office, process
from tests.fakes.clock import FakeClock


class Beat:
    """A patrol in an office, and what it asked of others."""

    def __init__(self, office: Office, *ends: str) -> None:
        self.office = office
        self.lists_asked = 0
        self.stopped: list[tuple[str, str]] = []
        self.patrol = Patrol(
            PatrolSeams(
                promises=office.promises,
                snapshots=office.feed,
                clock=office.clock,
                attachments=office.attachments,
                list_soon=self._list_soon,
                stop_instance=lambda id_, reason: self.stopped.append((id_, reason)),
            ),
            frozenset(ends),
        )

    def see(self, **processes: tuple[ProcessUse, ...]) -> None:
        self.patrol.observe(self.office.show(**processes))

    def _list_soon(self) -> None:
        self.lists_asked += 1


@asynccontextmanager
async def at_work(beat: Beat) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(beat.patrol.run())
        try:
            yield
        finally:
            task.cancel()


def real(pid: int, size: int = GIB, claim: str | None = None) -> ProcessUse:
    return replace(process(pid, size, claim), start_time=read_stat(pid).start_time)


class Stranger:
    """A process that is no child of ours, for those are spared, and what became of it."""

    def __init__(self, shell: subprocess.Popen[bytes]) -> None:
        assert shell.stdout is not None
        self._told = shell.stdout
        self.pid = int(self._told.readline())
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def is_alive(self) -> bool:
        return not select.select([self._pidfd], [], [], 0)[0]

    def ended_by(self) -> int:
        """The signal that ended it, or is about to."""
        assert select.select([self._told], [], [], 60)[0], "it lives"
        return int(self._told.readline()) - 128

    def kill(self) -> None:
        """Returns once it is dead."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        assert select.select([self._pidfd], [], [], 60)[0]

    def close(self) -> None:
        self.kill()
        os.close(self._pidfd)


@contextmanager
def stranger(*, ignores_sigterm: bool = False, **environment: str) -> Iterator[Stranger]:
    trap = "trap '' TERM; " if ignores_sigterm else ""
    with subprocess.Popen(
        ["/bin/sh", "-c", f"{trap}sleep 300 & echo $!; wait $!; echo $?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"} | environment,
    ) as shell:
        it = Stranger(shell)
        try:
            until_shown(it.pid)
            yield it
        finally:
            it.close()


def until_shown(pid: int) -> None:
    """It shows the shell's environment before its exec, and none for a moment after it."""
    deadline, own = time.monotonic() + 60, Path(f"/proc/{pid}")
    while not (own / "cmdline").read_bytes().startswith(b"sleep") or not (
        (own / "environ").read_bytes()
    ):
        assert time.monotonic() < deadline


# Reporting.


async def test_a_trespass_is_told_once_and_its_end_too(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office)
    for _ in range(3):
        beat.see(gpu0=(process(8, 2 * GIB),))
    ((type_, reason),) = await office.events("device.trespass", "process.")
    assert type_ == "device.trespass"
    assert reason == "p8 (8) is on gpu0 with 2 GiB, which reservations/its has alone"
    (details,) = await office.details("device.trespass")
    assert details == {
        "pid": "8",
        "process_name": "p8",
        "bytes": str(2 * GIB),
        "device": f"devices/{GPU}",
        "against": "reservations/its",
    }
    beat.see(gpu0=())
    told = await office.events("device.trespass")
    assert [type_ for type_, _ in told] == ["device.trespass", "device.trespass.ended"]
    # It comes back: a new case.
    beat.see(gpu0=(process(8),))
    assert len(await office.events("device.trespass")) == 3


async def test_a_promise_used_on_the_wrong_device_is_a_trespass(office: Office) -> None:
    await office.reserve("mine")
    Beat(office).see(gpu1=(process(8, claim="mine"),))
    ((_, reason),) = await office.events("device.trespass")
    assert reason.endswith("which its promise leaves out; it belongs to reservations/mine")


async def test_over_use_is_told_with_the_numbers(office: Office) -> None:
    await office.reserve("mine", size=GIB)
    beat = Beat(office)
    beat.see(gpu0=(process(7, GIB, "mine"),))
    assert await office.events(OVERUSE) == []
    for _ in range(2):
        beat.see(gpu0=(process(7, GIB, "mine"), process(8, 2 * GIB, "mine")))
    ((_, reason),) = await office.events(OVERUSE)
    assert reason == ("reservations/mine holds 3 GiB of gpu0, promised are 1 GiB: p7 (7), p8 (8)")
    (details,) = await office.details(OVERUSE)
    assert (details["granted_bytes"], details["observed_bytes"], details["pids"]) == (
        str(GIB), str(3 * GIB), "7,8",
    )  # fmt: skip
    beat.see(gpu0=(process(7, GIB, "mine"),))
    assert [t for t, _ in await office.events(OVERUSE)] == [OVERUSE, f"{OVERUSE}.ended"]


async def test_an_old_list_or_a_lost_device_changes_nothing(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office)
    beat.see(gpu0=(process(8),))
    latest = office.feed.latest
    assert latest is not None
    beat.patrol.observe(latest)  # the same list again
    lost = replace(latest.samples[0], health=Health.LOST, health_reason="gone")
    beat.patrol.observe(replace(latest, samples=(lost, latest.samples[1])))
    assert [t for t, _ in await office.events("device.trespass")] == ["device.trespass"]
    # A device that is shown no more has no cases.
    beat.patrol.observe(replace(latest, samples=latest.samples[1:]))
    assert len(await office.events("device.trespass")) == 2


async def test_what_was_just_attached_is_no_trespasser(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    attached = Attachment(wall=1.0, pid=8, start_time=80)
    await office.promises.attach("its", None, lambda: attached, Call(method="AttachProcess"))
    # The list is from before it was attached.
    Beat(office, TRESPASS).see(gpu0=(process(8),))
    assert await office.events("device.trespass") == []


async def test_by_default_nobody_is_ended(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office)
    with stranger() as it:
        for _ in range(4):
            beat.see(gpu0=(real(it.pid),))
        assert it.is_alive
    assert beat.lists_asked == 0
    assert await office.events("process.") == []


# Ending.


async def test_a_proved_trespasser_is_ended_and_the_proof_told(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger() as it:
        listed = real(it.pid)
        beat.see(gpu0=(listed,))
        # Opened; a list is asked for that was read after that.
        assert (it.is_alive, beat.lists_asked) == (True, 1)
        beat.see(gpu0=(listed,))
        assert it.ended_by() == signal.SIGTERM
    ((_, reason),) = await office.events("process.terminated")
    assert reason.startswith(f"SIGTERM to {it.pid}: p{it.pid} ({it.pid}) is on gpu0")
    (details,) = await office.details("process.terminated")
    assert details["start_time"] == str(listed.start_time)
    assert "listed again" in details["proof"]


async def test_an_over_user_is_ended_and_its_neighbour_is_not(office: Office) -> None:
    await office.reserve("mine", size=GIB)
    await office.reserve("other", size=GIB)
    beat = Beat(office, OVERUSE)
    with stranger() as first, stranger() as second, stranger() as neighbour, stranger() as other:
        listed = (
            real(first.pid, GIB, "mine"),
            real(second.pid, 2 * GIB, "mine"),
            real(neighbour.pid, GIB, "other"),
            real(other.pid, 5 * GIB),
        )
        for _ in range(3):
            beat.see(gpu0=listed)
        assert [each.ended_by() for each in (first, second)] == [signal.SIGTERM] * 2
        assert (neighbour.is_alive, other.is_alive) == (True, True)


async def test_who_does_not_end_of_sigterm_is_killed_five_seconds_later(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger(ignores_sigterm=True) as it:
        async with at_work(beat):
            listed = real(it.pid)
            beat.see(gpu0=(listed,))
            beat.see(gpu0=(listed,))
            await office.events()
            assert it.is_alive
            office.clock.advance(GRACE_SECONDS - 0.1)
            await office.events()
            assert it.is_alive
            office.clock.advance(0.2)
            await office.events()
            assert it.ended_by() == signal.SIGKILL
        details = await office.details("process.terminated")
        assert [each["signal"] for each in details] == ["SIGTERM", "SIGKILL"]


class Forbidden:
    """A kernel that lets the first few signals pass, and then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passed: int) -> None:
        self._passed = passed
        self._send = signal.pidfd_send_signal
        monkeypatch.setattr(signal, "pidfd_send_signal", self._sent)

    def _sent(self, pidfd: int, number: int) -> None:
        if not self._passed:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self._passed -= 1
        self._send(pidfd, number)


async def test_who_may_not_be_signalled_is_spared_and_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger() as it:
        listed = real(it.pid)
        with monkeypatch.context() as patched:
            Forbidden(patched, passed=0)
            for _ in range(4):
                beat.see(gpu0=(listed,))
        assert it.is_alive
    ((_, reason),) = await office.events("process.")
    assert reason == "not ended: it cannot be sent SIGTERM: Operation not permitted"


async def test_who_may_not_be_killed_any_more_is_spared_and_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger(ignores_sigterm=True) as it, monkeypatch.context() as patched:
        Forbidden(patched, passed=1)
        async with at_work(beat):
            for _ in range(2):
                beat.see(gpu0=(real(it.pid),))
            await office.events()
            office.clock.advance(GRACE_SECONDS + 0.1)
            told = [type_ for type_, _ in await office.events("process.")]
            while len(told) < 2:
                told = [type_ for type_, _ in await office.events("process.")]
        assert told == ["process.terminated", "process.spared"]


def test_whose_proc_makes_no_sense_is_not_held(tmp_path: Path) -> None:
    pid = os.getpid()
    folder = tmp_path / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} (no more of it)")
    with pytest.raises(Unproved, match="its /proc makes no sense"):
        hold(process(pid), DeviceKind.HOST, FakeClock(), str(tmp_path))


async def test_nothing_is_kept_of_lists_of_devices_that_are_gone(office: Office) -> None:
    beat = Beat(office)
    beat.see()
    assert GPU in beat.patrol._listed
    del office.samples["gpu0"]
    beat.see()
    assert GPU not in beat.patrol._listed


async def test_an_instance_that_over_uses_is_stopped_by_those_who_run_it(office: Office) -> None:
    await office.reserve("mine", size=GIB, ttl_seconds=None, instance="tiny-1")
    beat = Beat(office, OVERUSE, TRESPASS)
    with stranger() as it:
        for _ in range(3):
            beat.see(gpu0=(real(it.pid, 2 * GIB, "mine"),))
        assert it.is_alive
    ((id_, reason),) = beat.stopped
    assert id_ == "tiny-1"
    assert "promised are 1 GiB" in reason


async def test_an_instances_process_that_trespasses_is_told_and_spared(office: Office) -> None:
    await office.reserve("mine", size=GIB, ttl_seconds=None, instance="tiny-1")
    beat = Beat(office, OVERUSE, TRESPASS)
    with stranger() as it:
        for _ in range(3):
            beat.see(gpu1=(real(it.pid, GIB, "mine"),))
        assert it.is_alive
    assert beat.stopped == []
    ((_, reason),) = await office.events("process.")
    assert reason == "not ended: it belongs to instances/tiny-1"


@pytest.mark.parametrize(
    ("environment", "change", "why"),
    [
        ({TOKEN_NAME: "secret"}, {}, "it is an instance's"),
        ({}, {"kind": ProcessKind.GRAPHICS}, "it draws on the device"),
        ({}, {"start_time": None}, "its /proc is not visible"),
        ({}, {"start_time": 1}, "its pid is another process's by now"),
        ({}, {"pid": 1, "start_time": read_stat(1).start_time}, "it is the first process"),
        (
            {},
            {"pid": os.getpid(), "start_time": read_stat(os.getpid()).start_time},
            "it is gpud itself",
        ),
    ],
)
async def test_who_is_never_ended(
    office: Office, environment: dict[str, str], change: dict[str, object], why: str
) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger(**environment) as it:
        listed = replace(real(it.pid), **change)  # type: ignore[arg-type]
        for _ in range(4):
            beat.see(gpu0=(listed,))
        assert it.is_alive
    ((type_, reason),) = await office.events("process.")
    assert type_ == "process.spared"
    assert reason.startswith(f"not ended: {why}")


async def test_a_child_of_the_daemon_is_never_ended(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with hog() as pid:
        for _ in range(3):
            beat.see(gpu0=(real(pid),))
        assert read_stat(pid).state not in "ZX"
    ((_, reason),) = await office.events("process.")
    assert reason == "not ended: it is a child of gpud"


async def test_a_list_from_before_the_opening_proves_nothing(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger() as it:
        beat.see(gpu0=(real(it.pid),))
        latest = office.feed.latest
        assert latest is not None
        # An answer that came late, out of the tick in which the process was opened.
        office.clock.advance(1.0)
        late = replace(latest.samples[0], listed_boottime=latest.boottime + 0.5)
        now = office.clock.now().boottime
        beat.patrol.observe(replace(latest, boottime=now, samples=(late, latest.samples[1])))
        assert it.is_alive
        # A tick that began before it was opened, in which the list was read after that.
        later = replace(latest.samples[0], listed_boottime=now)
        beat.patrol.observe(replace(latest, samples=(later, latest.samples[1])))
        assert it.is_alive
    assert await office.events("process.") == []


async def test_a_list_that_may_not_know_an_attachment_proves_nothing(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger() as it:
        beat.see(gpu0=(real(it.pid),))
        # Its parent's parent is attached: only the sampler knows who descends from it.
        attached = Attachment(wall=1.0, pid=8, start_time=80)
        await office.promises.attach("its", None, lambda: attached, Call(method="AttachProcess"))
        beat.see(gpu0=(real(it.pid),))
        assert it.is_alive
        beat.see(gpu0=(real(it.pid, claim="its"),))
        beat.see(gpu0=(real(it.pid, claim="its"),))
        assert it.is_alive
    assert await office.events("process.") == []


async def test_one_that_ends_by_itself_and_its_successor(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    beat = Beat(office, TRESPASS)
    with stranger() as it:
        listed = real(it.pid)
        beat.see(gpu0=(listed,))
        it.kill()
        # Listed still, as if another had its pid and its very start time by now.
        beat.see(gpu0=(listed,))
        beat.see(gpu0=(listed,))
    ((type_, reason),) = await office.events("process.")
    assert (type_, reason) == ("process.spared", "not ended: it has ended by itself")


async def test_nothing_stays_open(office: Office) -> None:
    await office.reserve("its", exclusive=True)
    before = len(os.listdir("/proc/self/fd"))
    beat = Beat(office, TRESPASS)
    async with at_work(beat):
        with stranger() as it, stranger(ignores_sigterm=True) as other:
            for _ in range(2):
                beat.see(gpu0=(real(it.pid), real(other.pid)))
            office.clock.advance(GRACE_SECONDS)
            await office.events()
            beat.see(gpu0=())
            with stranger() as third:
                beat.see(gpu0=(real(third.pid),))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_drivers_pids_are_not_ours_in_a_namespace_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()
    assert not proof.sees_all_pids(str(tmp_path))
    with stranger() as it, pytest.raises(Unproved, match="PID namespace"):
        hold(real(it.pid), DeviceKind.GPU, FakeClock(), str(tmp_path))


def test_what_is_gone_or_not_there_is_not_held() -> None:
    with stranger() as it:
        listed = real(it.pid)
        held = hold(listed, DeviceKind.SIMULATED, FakeClock())
        assert isinstance(held, Held)
        assert not held.has_ended()
        it.kill()
        assert select.select([held.pidfd], [], [], 10)[0]
        assert held.has_ended()
    assert not held.send(signal.SIGTERM)
    held.close()
    with pytest.raises(Gone):
        hold(listed, DeviceKind.SIMULATED, FakeClock())


def test_an_instances_secret_is_known_by_its_name() -> None:
    assert f"{TOKEN_NAME}=".encode() == INSTANCE_TOKEN
