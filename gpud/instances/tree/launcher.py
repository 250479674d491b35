"""The launcher seam: engine process trees, started gated, watched, adopted, stopped."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from gpud.clock import Clock
from gpud.errors import GpudError
from gpud.instances.instance import Exit, ProcessIdentity
from gpud.instances.tree import custody, shim
from gpud.instances.tree import identity as identities
from gpud.instances.tree.binding import BINDING_FILE, Binding, told
from gpud.instances.tree.output import tail
from gpud.instances.tree.streams import above, handed, standard_streams

# From the opened gate to the executed engine; measured: 1 ms.
START_LIMIT_SECONDS = 10.0
# For a shim whose gate was the last thing that the former daemon touched.
ADOPTION_LIMIT_SECONDS = 2.0
# For a kernel that refuses what the proof of a process takes: this may pass.
PROOF_LIMIT_SECONDS = 10.0
# Survivors of a dead shim: how long recovery may hunt them (invariant I4).
SWEEP_LIMIT_SECONDS = 5.0
SWEEP_PAUSE_SECONDS = 0.01
# What the host has no more of just now: processes, memory, descriptors, room on a disk.
_SHORTAGES: Final = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
)


@dataclass(kw_only=True, eq=False)
class LaunchFailed(GpudError):
    """The shim or the engine could not be started, or a former tree could not be ended."""

    instance: str
    problem: str
    errno: int | None = None  # None: no call of the kernel's was refused

    @classmethod
    def by(cls, instance: str, error: OSError | ValueError) -> LaunchFailed:
        """What kept it from being launched."""
        number = error.errno if isinstance(error, OSError) else None
        return cls(instance=instance, problem=str(error), errno=number)

    @property
    def is_shortage(self) -> bool:
        """Whether the host lacked something: that says nothing against what was to be started."""
        return self.errno in _SHORTAGES

    def __str__(self) -> str:
        return f"cannot launch {self.instance}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One tree to start. `directory` exists and is the instance's own.

    `files` are descriptors that the engine inherits, numbered from shim.FIRST_HANDED on.
    """

    instance: str
    reservation: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    token: str
    binding: Binding = shim.NOWHERE
    files: tuple[int, ...] = ()


class Tree(Protocol):
    """A process tree: the shim and all that descends from the engine."""

    identity: ProcessIdentity

    async def go(self) -> int:
        """Open the gate: the engine is executed. Returns its pid. Raises LaunchFailed."""
        ...

    def engine_pid(self) -> int | None:
        """The engine's main process, once it was started."""
        ...

    def bound(self) -> Binding:
        """What it was bound to, once it was started; nothing where the shim could not say."""
        ...

    def engine_exit(self) -> Exit | None:
        """How the engine's main process ended; None while it runs (or nobody saw it end)."""
        ...

    async def engine_gone(self) -> Exit:
        """Wait until the engine's main process has ended, however; descendants may still live."""
        ...

    async def gone(self) -> None:
        """Wait until the whole tree is gone, the shim included."""
        ...

    def terminate(self) -> None:
        """SIGTERM to the engine's main process; no error when it is gone."""
        ...

    def kill(self) -> None:
        """SIGKILL to the whole tree, repeated by the shim until none is left."""
        ...


class Launcher(Protocol):
    """Starts trees and finds them again."""

    async def spawn(self, spec: LaunchSpec) -> Tree:
        """Start the shim, blocked before the gate. Raises LaunchFailed."""
        ...

    async def adopt(self, identity: ProcessIdentity, directory: Path) -> Tree | None:
        """The tree of an earlier life of the daemon, its full identity proved; None: not there.

        Survivors of a tree whose shim died are found by the token and killed before None.
        Raises LaunchFailed when they do not die within 5 s, and, touching nothing, where the
        host does not let it be told whether the shim is there.
        """
        ...


def last_exit(directory: Path) -> Exit | None:
    """How the engine that ran in this directory ended; None: it has not, or nobody saw it."""
    record = _record(directory / shim.EXIT_FILE)
    if record is None:
        return None
    return Exit(code=record["code"], signal=record["signal"], wall=record["wall"])


class ProcessTree:
    """A shim and what is below it, seen through its pidfd and the files that it writes."""

    def __init__(
        self, identity: ProcessIdentity, pidfd: int, directory: Path, clock: Clock
    ) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._directory = directory
        self._clock = clock
        self._gate: int | None = None
        self._news: int | None = None
        self._pid: int | None = None
        self._exit: Exit | None = None
        self._engine_started = asyncio.Event()  # or it never will be
        self._engine_ended = asyncio.Event()
        self._shim_ended = asyncio.Event()
        self._settling = asyncio.Lock()
        self._none_left = False

    def watch(self, gate: int | None = None) -> None:
        """Follow the shim on the running loop, from here on; owns the gate's descriptor."""
        self._gate = gate
        loop = asyncio.get_running_loop()
        # Opened before the files are read, so that nothing told in between is missed.
        with suppress(FileNotFoundError):
            fifo = self._directory / shim.NEWS_FIFO
            self._news = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            loop.add_reader(self._news, self._take_news)
        loop.add_reader(self._pidfd, self._take_shim_end)
        self._read_records()

    async def go(self) -> int:
        """Open the gate: the engine is executed. Returns its pid. Raises LaunchFailed."""
        if self._gate is not None:
            with suppress(BrokenPipeError):  # then the shim's end is what is waited for
                os.write(self._gate, shim.GATE_OPEN)
            self._shut_gate()
        if not await self.started(START_LIMIT_SECONDS):
            raise self._failed(f"the shim started no engine within {START_LIMIT_SECONDS:g} s")
        if self._pid is None:
            lines = tail(self._directory, 1)
            number = (_record(self._directory / shim.EXIT_FILE) or {}).get("errno")
            problem = lines[0] if lines else "the shim ended before the engine began"
            raise self._failed(problem, number)
        return self._pid

    async def started(self, limit_seconds: float) -> bool:
        """Wait until the engine was started, or never will be; False: neither in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_seconds):
                await self._engine_started.wait()
        return self._engine_started.is_set()

    def ended(self) -> bool:
        """Whether the shim has ended."""
        return self._shim_ended.is_set()

    def engine_pid(self) -> int | None:
        """The engine's main process, once it was started."""
        return self._pid

    def bound(self) -> Binding:
        """What it was bound to, once it was started; nothing where the shim could not say."""
        try:
            return told((self._directory / BINDING_FILE).read_bytes())
        except (OSError, ValueError):
            return Binding(problems=("the shim did not say what it is bound to",))

    def engine_exit(self) -> Exit | None:
        """How the engine's main process ended; None while it runs (or nobody saw it end)."""
        return self._exit

    async def engine_gone(self) -> Exit:
        """Wait until the engine's main process has ended, however; descendants may still live."""
        await self._engine_ended.wait()
        if self._exit is None:
            await self.gone()
            self._exit = Exit(code=None, signal=None, wall=self._clock.now().wall)
        return self._exit

    async def gone(self) -> None:
        """Wait until the whole tree is gone, the shim included.

        A shim that was killed leaves its descendants to init: they are found and killed here.
        """
        await self._shim_ended.wait()
        async with self._settling:
            if not self._none_left:
                await sweep(self.identity.token, self._clock)
                self._none_left = True

    def terminate(self) -> None:
        """SIGTERM to the engine's main process; no error when it is gone."""
        self._shut_gate()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole tree, repeated by the shim until none is left."""
        # Before the gate is open the shim is the whole tree, and takes no orders yet.
        self._signal(signal.SIGKILL if self._shut_gate() else signal.SIGUSR1)
        self._signal(signal.SIGCONT)  # somebody may have stopped it with its tree

    def _signal(self, number: signal.Signals) -> None:
        if not self._shim_ended.is_set():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _shut_gate(self) -> bool:
        """End of file for a shim that waits there; whether the gate was still ours to shut."""
        gate, self._gate = self._gate, None
        if gate is not None:
            os.close(gate)
        return gate is not None

    def _take_news(self) -> None:
        # Nothing to read: another reader of the FIFO took the byte. What it told is in the files.
        with suppress(BlockingIOError):
            if self._news is not None and not os.read(self._news, 4096):
                self._drop_news()
        self._read_records()

    def _drop_news(self) -> None:
        if self._news is not None:
            asyncio.get_running_loop().remove_reader(self._news)
            os.close(self._news)
            self._news = None

    def _take_shim_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        with suppress(ChildProcessError):  # an adopted one is init's to reap
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        os.close(self._pidfd)
        self._shut_gate()
        self._drop_news()
        self._read_records()
        self._none_left = _ended_by_itself(self._directory)
        for event in (self._engine_started, self._engine_ended, self._shim_ended):
            event.set()

    def _read_records(self) -> None:
        engine = _record(self._directory / shim.ENGINE_FILE) if self._pid is None else None
        if engine is not None:
            self._pid = engine["pid"]
        self._exit = self._exit or last_exit(self._directory)
        if self._pid is not None or self._exit is not None:
            self._engine_started.set()
        if self._exit is not None:
            self._engine_ended.set()

    def _failed(self, problem: str, number: int | None = None) -> LaunchFailed:
        return LaunchFailed(instance=self._directory.name, problem=problem, errno=number)


class ProcessLauncher:
    """Starts shims as children of this process, and finds those of its earlier lives."""

    def __init__(self, clock: Clock, boot_id: str) -> None:
        self._clock = clock
        self._boot_id = boot_id

    async def spawn(self, spec: LaunchSpec) -> ProcessTree:
        """Start the shim, blocked before the gate. Raises LaunchFailed.

        Blocks for the execution of Python (1 ms): handed to a thread, a cancelled spawn could
        leave a process that nobody knows.
        """
        try:
            for name in (shim.ENGINE_FILE, shim.EXIT_FILE, shim.NEWS_FIFO, BINDING_FILE):
                (spec.directory / name).unlink(missing_ok=True)
            os.mkfifo(spec.directory / shim.NEWS_FIFO, 0o600)
            pid, gate = self._execute(spec)
        except (OSError, ValueError) as error:
            raise LaunchFailed.by(spec.instance, error) from error
        try:
            pidfd = os.pidfd_open(pid)
            try:
                identity = identities.identify(pid, pidfd, self._boot_id, spec.token)
            except BaseException:
                os.close(pidfd)
                raise
        except (OSError, ValueError) as error:
            os.close(gate)
            await _reap(pid)
            raise LaunchFailed.by(spec.instance, error) from error
        tree = ProcessTree(identity, pidfd, spec.directory, self._clock)
        tree.watch(gate)
        try:
            custody.write(spec.directory, identity)
        except OSError as error:
            tree.kill()
            raise LaunchFailed.by(spec.instance, error) from error
        return tree

    async def adopt(self, identity: ProcessIdentity, directory: Path) -> ProcessTree | None:
        """The tree of an earlier life of the daemon, its full identity proved; None: not there.

        Survivors of a tree whose shim died are found by the token and killed before None.
        Raises LaunchFailed when they do not die within 5 s, and, touching nothing, where the
        host does not let it be told whether the shim is there.
        """
        if identity.boot_id != self._boot_id:
            return None
        tree = await self._find(identity, directory)
        if tree is not None:
            # The gate may have been opened by the last act of that life: the shim then starts
            # the engine just now. If it never was, the shim ends just now.
            if await tree.started(ADOPTION_LIMIT_SECONDS) and not tree.ended():
                return tree
            tree.kill()
        if tree is not None or not _ended_by_itself(directory):
            await self._end_survivors(identity, directory)
        return None

    async def _find(self, identity: ProcessIdentity, directory: Path) -> ProcessTree | None:
        """It, watched; None: it is proved to be gone. A refusal of the kernel proves nothing."""
        end = self._clock.now().boottime + PROOF_LIMIT_SECONDS
        while True:
            try:
                pidfd = identities.open_proved(identity)
                if pidfd is None:
                    return None
                tree = ProcessTree(identity, pidfd, directory, self._clock)
                try:
                    tree.watch()
                except OSError:
                    os.close(pidfd)
                    raise
            except OSError as error:
                if self._clock.now().boottime >= end:
                    raise LaunchFailed.by(directory.name, error) from error
            else:
                return tree
            await self._clock.sleep(SWEEP_PAUSE_SECONDS)

    async def _end_survivors(self, identity: ProcessIdentity, directory: Path) -> None:
        try:
            async with asyncio.timeout(SWEEP_LIMIT_SECONDS):
                await sweep(identity.token, self._clock)
        except TimeoutError:
            problem = f"processes of its earlier life did not end in {SWEEP_LIMIT_SECONDS:g} s"
            raise LaunchFailed(instance=directory.name, problem=problem) from None

    def _execute(self, spec: LaunchSpec) -> tuple[int, int]:
        """The shim's pid and the writing end of its gate. Raises OSError, ValueError."""
        ours = {"GPUD_INSTANCE": spec.instance, identities.TOKEN_NAME: spec.token}
        message = shim.pack(
            spec.argv,
            {**spec.environment, **ours, "GPUD_RESERVATION": spec.reservation},
            spec.binding,
        )
        below, gate = os.pipe()
        os.set_blocking(gate, False)
        try:
            os.write(gate, message)  # buffered by the pipe
            program = (sys.executable, "-I", "-S", shim.__file__)
            with above(spec.files) as copies:
                pid = os.posix_spawn(
                    sys.executable,
                    (*program, str(spec.directory), str(len(copies))),
                    ours,
                    file_actions=[
                        *standard_streams(below, spec.directory / "shim.log"),
                        *handed(copies),
                    ],
                    setsid=True,
                    setsigmask=(),
                )
        except OSError:
            os.close(gate)
            raise
        finally:
            os.close(below)
        return pid, gate


async def _reap(pid: int) -> None:
    """End a child that nobody else knows, the shim before its gate; its pid is free then."""
    os.kill(pid, signal.SIGKILL)  # it is ours until it is waited for
    with suppress(ChildProcessError):
        await asyncio.to_thread(os.waitpid, pid, 0)


async def sweep(token: str, clock: Clock, name: str = identities.TOKEN_NAME) -> None:
    """Kill all that hold the token, in that variable, until none is found twice in a row."""
    empty_passes = 0
    while empty_passes < 2:
        killed = await asyncio.to_thread(identities.kill_holders, token, name)
        empty_passes = 0 if killed else empty_passes + 1
        await clock.sleep(SWEEP_PAUSE_SECONDS)


def _ended_by_itself(directory: Path) -> bool:
    """Whether the shim left none behind: only then does it remove the FIFO."""
    return not (directory / shim.NEWS_FIFO).exists()


def _record(path: Path) -> Any | None:
    """What the shim told in this file; it is there whole or not at all."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
