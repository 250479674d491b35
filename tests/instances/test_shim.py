"""The shim with real processes: what it keeps, what it kills, what it survives."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gpud.clock import SystemClock
from gpud.instances.instance import ProcessIdentity
from gpud.instances.tree import identity as identities
from gpud.instances.tree import launcher as launcher_module
from gpud.instances.tree import shim
from gpud.instances.tree.identity import open_proved
from gpud.instances.tree.launcher import (
    LaunchFailed,
    LaunchSpec,
    ProcessLauncher,
    ProcessTree,
)
from tests.instances import unruly
from tests.models.opened import descriptors

Launch = Callable[..., Awaitable[ProcessTree]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launcher() -> ProcessLauncher:
    clock = SystemClock()
    return ProcessLauncher(clock, clock.now().boot_id)


@pytest.fixture
async def launch(launcher: ProcessLauncher, tmp_path: Path) -> AsyncIterator[Launch]:
    trees = []

    async def start(*argv: str) -> ProcessTree:
        tree = await launcher.spawn(spec_of(tmp_path, *argv))
        trees.append(tree)
        await tree.go()
        return tree

    async with asyncio.timeout(60):
        yield start
        for tree in trees:
            tree.kill()
            await tree.gone()


def spec_of(directory: Path, *argv: str) -> LaunchSpec:
    return LaunchSpec(
        instance="i-7",
        reservation="r-7",
        argv=argv,
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "EMPTY": "", "PAIR": "a=b"},
        directory=directory,
        token=secrets.token_hex(16),
    )


def unruly_argv(mode: str, directory: Path) -> tuple[str, ...]:
    return sys.executable, unruly.__file__, mode, str(directory / "pids")


async def until(condition: Callable[[], object]) -> None:
    """What other processes do cannot be awaited; bounded by the fixture's timeout."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def noted(directory: Path) -> list[int]:
    path = directory / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return shim.stat_fields(pid)[0] not in (b"Z", b"X")
    except OSError:
        return False


def about(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text()


def of_program(directory: Path) -> set[int]:
    """Living processes whose command line names the directory: forks keep it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.fsencode(directory) in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_end_of_file_before_the_gate_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    os.mkfifo(tmp_path / shim.NEWS_FIFO)
    message = shim.pack(("/usr/bin/touch", str(marker)), {})
    for sent in (b"", message[:5], message[:-1], message):
        done = subprocess.run(
            [sys.executable, "-I", "-S", shim.__file__, str(tmp_path)],
            input=sent, timeout=60, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == shim.GATE_CLOSED
    assert not marker.exists()


async def test_environment_is_exactly_what_was_said(launch: Launch, tmp_path: Path) -> None:
    tree = await launch("/usr/bin/env", "-0")
    await tree.gone()
    lines = set((tmp_path / shim.OUTPUT_FILE).read_bytes().split(b"\0")) - {b""}
    assert lines == {
        b"PATH=/usr/bin:/bin", b"LANG=C.UTF-8", b"EMPTY=", b"PAIR=a=b",
        b"GPUD_INSTANCE=i-7", b"GPUD_RESERVATION=r-7",
        b"GPUD_INSTANCE_TOKEN=" + tree.identity.token.encode(),
    }  # fmt: skip


async def test_engine_starts_clean(launch: Launch, tmp_path: Path) -> None:
    """No descriptor, mask or disposition of the daemon's reaches it; it leads its group."""
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        tree = await launch(*unruly_argv("obey", tmp_path))
    finally:
        os.close(leak)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    pid = tree.engine_pid()
    assert pid is not None
    await until(lambda: b"up" in (tmp_path / shim.OUTPUT_FILE).read_bytes())
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    status = dict(line.split(":\t", 1) for line in about(pid, "status").splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & (1 << signal.SIGHUP - 1) == 0
    assert status["Umask"] == "0077"
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == tree.identity.pid != os.getsid(0)
    assert about(pid, "oom_score_adj") == f"{shim.ENGINE_OOM_SCORE_ADJ}\n"
    assert os.readlink(f"/proc/{pid}/cwd") == str(tmp_path)


async def test_output_is_bounded_and_ends_with_the_last_line(
    launch: Launch, tmp_path: Path
) -> None:
    tree = await launch(*unruly_argv("flood", tmp_path))
    await tree.engine_gone()
    newer, older = (tmp_path / shim.OUTPUT_FILE), (tmp_path / shim.OLDER_OUTPUT_FILE)
    assert newer.stat().st_size <= shim.OUTPUT_LIMIT_BYTES
    assert older.stat().st_size <= shim.OUTPUT_LIMIT_BYTES
    numbers = [
        int(line.split()[0])
        for line in (older.read_bytes() + newer.read_bytes()).split(b"\n")[1:-1]
    ]
    assert numbers[-1] == 11_999
    assert numbers == list(range(numbers[0], 12_000)), "no line was lost between the two"


async def test_output_is_stamped_with_when_it_came_and_the_stamps_turn_with_it(
    launch: Launch, tmp_path: Path
) -> None:
    before = time.time()
    tree = await launch(*unruly_argv("flood", tmp_path))
    await tree.engine_gone()
    for output, times in (
        (shim.OLDER_OUTPUT_FILE, shim.OLDER_TIMES_FILE),
        (shim.OUTPUT_FILE, shim.TIMES_FILE),
    ):
        stamps = [line.split() for line in (tmp_path / times).read_text().splitlines()]
        assert {int(inode) for inode, _, _ in stamps} == {(tmp_path / output).stat().st_ino}
        assert int(stamps[0][1]) == 0
        assert before <= float(stamps[0][2]) <= time.time()
        # One for each second, however much comes in it.
        assert len(stamps) <= 2 + time.time() - before


async def test_a_disk_that_takes_no_more_ends_neither_engine_nor_shim(
    launch: Launch, tmp_path: Path
) -> None:
    tree = await launch(*unruly_argv("obey", tmp_path))
    resource.prlimit(tree.identity.pid, resource.RLIMIT_FSIZE, (0, 0))
    tree.terminate()
    exit_ = await tree.engine_gone()
    assert (exit_.code, exit_.signal) == (None, None), "nobody could be told"
    await tree.gone()
    assert not (tmp_path / shim.NEWS_FIFO).exists()


@pytest.mark.parametrize(
    "mode",
    ["ignore_term", "new_session", "double_fork", "clear_environment", "fork_loop", "comet"],
)
async def test_unruly_trees_are_gone_whole(mode: str, launch: Launch, tmp_path: Path) -> None:
    tree = await launch(*unruly_argv(mode, tmp_path))
    if mode == "ignore_term":
        await until(lambda: b"up" in (tmp_path / shim.OUTPUT_FILE).read_bytes())
    else:
        await until(lambda: noted(tmp_path))
    tree.terminate()
    tree.kill()
    await tree.gone()  # within a second on a machine of its own: tests/proof/test_trees.py
    assert of_program(tmp_path) == set()
    assert not any(alive(pid) for pid in noted(tmp_path))
    assert not (tmp_path / shim.NEWS_FIFO).exists(), "the shim itself saw the last one end"


async def test_survivors_of_a_killed_shim_are_found_and_killed(
    launch: Launch, tmp_path: Path
) -> None:
    tree = await launch(*unruly_argv("new_session", tmp_path))
    await until(lambda: noted(tmp_path))
    os.kill(tree.identity.pid, signal.SIGKILL)
    exit_ = await tree.engine_gone()
    assert (exit_.code, exit_.signal) == (None, None)
    await tree.gone()
    assert of_program(tmp_path) == set()


async def test_survivors_of_a_killed_shim_are_killed_on_adoption(
    launch: Launch, launcher: ProcessLauncher, tmp_path: Path
) -> None:
    tree = await launch(*unruly_argv("double_fork", tmp_path))
    await until(lambda: noted(tmp_path))
    os.kill(tree.identity.pid, signal.SIGKILL)
    await until(lambda: not alive(tree.identity.pid))
    assert await launcher.adopt(tree.identity, tmp_path) is None
    assert of_program(tmp_path) == set()


@pytest.mark.parametrize("call", ["pidfd_open", "identify"])
async def test_what_cannot_be_identified_leaves_no_process_and_no_descriptor(
    launcher: ProcessLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spawned: list[int] = []

    def fails(pid: int, *_: object) -> int:
        spawned.append(pid)
        raise OSError(24, "too many open files")

    before = Counter(descriptors(os.getpid()).values())
    monkeypatch.setattr(os if call == "pidfd_open" else identities, call, fails)
    with pytest.raises(LaunchFailed, match="too many open files") as refused:
        await launcher.spawn(spec_of(tmp_path, "/bin/true"))
    assert refused.value.is_shortage
    monkeypatch.undo()
    # Fewer there may be, for a garbage collection closes those of earlier tests.
    assert not Counter(descriptors(os.getpid()).values()) - before
    assert str(spawned[0]) not in os.listdir("/proc")  # nor is it left unreaped


async def test_the_shim_tells_why_the_engine_could_not_be_executed(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    tree = await launcher.spawn(spec_of(tmp_path, str(tmp_path / "missing")))
    with pytest.raises(LaunchFailed, match="No such file") as refused:
        await tree.go()
    assert (refused.value.errno, refused.value.is_shortage) == (errno.ENOENT, False)
    await tree.gone()


@pytest.fixture(params=["pidfd_open", "_shows", "open"])
def exhausted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """The refusals that are left for what the proof and the watch of a shim take."""
    left: list[OSError] = []
    place = identities if request.param == "_shows" else os
    real = getattr(place, request.param)

    def refusing(*given: object, **named: object) -> object:
        is_asked = request.param != "open" or Path(str(given[0])).name == shim.NEWS_FIFO
        if left and is_asked:
            raise left.pop()
        return real(*given, **named)

    monkeypatch.setattr(place, request.param, refusing)
    return left


async def test_a_host_that_is_exhausted_for_a_moment_ends_no_engine(
    launch: Launch, launcher: ProcessLauncher, tmp_path: Path, exhausted: list[OSError]
) -> None:
    tree = await launch("/bin/sleep", "100")
    pid = tree.engine_pid()
    assert pid is not None
    before = Counter(descriptors(os.getpid()).values())
    exhausted += [OSError(errno.EMFILE, "Too many open files")] * 3
    adopted = await launcher.adopt(tree.identity, tmp_path)
    assert (adopted is not None, exhausted) == (True, [])
    assert alive(pid)
    more = Counter(descriptors(os.getpid()).values()) - before
    assert more.total() <= 2, "its pidfd and its news, once"


async def test_what_cannot_be_proved_gone_is_left_alone(
    launch: Launch,
    launcher: ProcessLauncher,
    tmp_path: Path,
    exhausted: list[OSError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = await launch("/bin/sleep", "100")
    pid = tree.engine_pid()
    assert pid is not None
    monkeypatch.setattr(launcher_module, "PROOF_LIMIT_SECONDS", 0.05)
    exhausted += [OSError(errno.EMFILE, "Too many open files")] * 1000
    with pytest.raises(LaunchFailed, match="Too many open files"):
        await launcher.adopt(tree.identity, tmp_path)
    exhausted.clear()
    assert alive(pid)


SPAWNER = """
import asyncio, secrets, sys
import msgspec
from pathlib import Path
from gpud.clock import SystemClock
from gpud.instances.tree.launcher import LaunchSpec, ProcessLauncher

async def main(directory, gate, *argv):
    clock = SystemClock()
    launcher = ProcessLauncher(clock, clock.now().boot_id)
    tree = await launcher.spawn(LaunchSpec(
        instance="i-8", reservation="r-8", argv=argv, environment={"PATH": "/usr/bin:/bin"},
        directory=Path(directory), token=secrets.token_hex(16)))
    if gate == "go":
        await tree.go()
    elif gate == "byte":
        import os
        os.write(tree._gate, b"G")
    print(msgspec.json.encode(tree.identity).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def spawn_and_die(directory: Path, gate: str, *argv: str) -> ProcessIdentity:
    """A daemon that launches, tells the identity, and is killed."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", SPAWNER, str(directory), gate, *argv],
        stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    with daemon:
        assert daemon.stdout is not None
        identity = msgspec.json.decode(daemon.stdout.readline(), type=ProcessIdentity)
        daemon.kill()
    return identity


@pytest.mark.parametrize("gate", ["go", "byte"])
async def test_tree_survives_the_daemon_and_is_adopted(
    gate: str, launcher: ProcessLauncher, tmp_path: Path
) -> None:
    identity = spawn_and_die(tmp_path, gate, *unruly_argv("obey", tmp_path))
    adopted = await launcher.adopt(identity, tmp_path)
    assert adopted is not None
    pid = adopted.engine_pid()
    assert pid is not None
    assert alive(pid)
    await until(lambda: b"up" in (tmp_path / shim.OUTPUT_FILE).read_bytes())
    adopted.terminate()
    assert (await adopted.engine_gone()).signal == signal.SIGTERM
    await adopted.gone()


async def test_daemon_dead_before_the_gate_leaves_nothing(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    identity = spawn_and_die(tmp_path, "shut", "/usr/bin/touch", str(marker))
    assert await launcher.adopt(identity, tmp_path) is None
    assert open_proved(identity) is None
    assert not marker.exists()


async def test_identity_must_be_whole(launch: Launch, tmp_path: Path) -> None:
    tree = await launch("/bin/sleep", "100")
    identity = tree.identity
    pidfd = open_proved(identity)
    assert pidfd is not None
    os.close(pidfd)
    for other in (
        replace(identity, start_time=identity.start_time - 1),
        replace(identity, token=identity.token[:-1]),
        replace(identity, inode=1),
        replace(identity, pid=os.getpid()),
        replace(identity, pid=2**22 + 1),
    ):
        assert open_proved(other) is None


def test_a_thread_that_ends_meanwhile_hides_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, and gone when its children are asked for."""
    listed = os.listdir
    gone = str(2**22 + 1)  # more than there may be (PID_MAX_LIMIT)

    def threads(path: str) -> list[str]:
        return [gone, *listed(path), gone] if path.endswith("/task") else listed(path)

    with subprocess.Popen(["sleep", "60"]) as child:
        monkeypatch.setattr(os, "listdir", threads)
        assert child.pid in shim.children_of(os.getpid())
        child.kill()
