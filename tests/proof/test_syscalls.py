"""SIGKILL at every system call that changes a file of the state: each call of each kind, once.

strace counts each thread's calls of a kind apart, and kills whichever reaches the number first. So
what is traced is chosen such that one thread makes the calls: a first start (the main thread), the
start after a kill (the writer, and the main thread where it recovers), the ledger's operations, a
load and an unload (the writer), and their folders (the main thread alone). A thread that makes
fewer calls of a kind than another in one of these is killed at them in the others.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.proof.killing import FAULTS, told
from tests.proof.lives import Load, Unload
from tests.proof.operations import (
    Client,
    Cordon,
    Operation,
    Queued,
    Release,
    Renew,
    Reserve,
    ReserveTwo,
)
from tests.proof.record import record
from tests.proof.strace import strace
from tests.proof.witness import Witness, quiet
from tests.running import START_SECONDS, Gpud, calling

pytestmark = [pytest.mark.proof, pytest.mark.timeout(2400)]

MakeGpud = Callable[[int], Gpud]
Run = Callable[[list[str]], Awaitable[bool]]

LIMIT_SECONDS = 60.0
# What changes a file, of the calls that gpud and SQLite may make.
OF_FILES = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "unlink")
OF_FOLDERS = ("mkdir", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "rename")
NAMES = ("", "gpud-state", "lock", "ballast", "state.db", "state.db-wal", "state.db-journal")
LEDGER = (Reserve, ReserveTwo, Renew, Release, Queued, Cordon)


class Proof:
    """One scenario on one state directory, killed one call later each time until it ends alive."""

    def __init__(self, gpud: Gpud, log: Path) -> None:
        self.gpud = gpud
        self.log = log
        self.witness = Witness(gpud=gpud)
        self.kills = 0
        self.wrong: list[str] = []

    @property
    def files(self) -> list[str]:
        """strace's options for the files of the state directory, and itself."""
        paths = [str(self.gpud.state / name) for name in NAMES]
        return [option for path in paths for option in ("-P", path.rstrip("/"))]

    async def kill_at_every(self, calls: tuple[str, ...], run: Run) -> None:
        """`run` does the scenario under strace's options, and tells whether it was killed."""
        await run(["-e", f"trace={','.join(calls)}"])
        for call in sorted(self.made()):
            number = 1
            while await run(killing(call, number)):
                number += 1
            self.kills += number - 1
            if number == 1:
                self.wrong.append(f"{call} was made, and never killed")

    def made(self) -> set[str]:
        """The calls that the last run made."""
        return set(re.findall(r"^\d+ +(\w+)\(", self.log.read_text(), re.MULTILINE))

    async def recover(self, operations: list[Operation], answered: set[Operation]) -> None:
        """Start plainly if it is dead, settle what was asked, check all; leaves it running."""
        assert self.gpud.process is not None
        self.gpud.under = ()
        try:
            if self.gpud.process.poll() is not None:
                await asyncio.to_thread(self.gpud.start)
            async with calling(self.gpud) as api:
                client = Client(api=api, witness=self.witness)
                for each in operations:
                    await each.settle(client, answered=each in answered)
                await self.witness.check(api)
        except FAULTS as error:
            self.wrong.append(told(error))
        self.wrong += self.witness.wrong
        self.witness.wrong.clear()

    # The scenarios.

    async def first_start(self, options: list[str]) -> bool:
        if self.gpud.process is not None:
            self.gpud.kill()
            shutil.rmtree(self.gpud.state)
        self.witness = Witness(gpud=self.gpud)
        return await self._start(options)

    async def next_start(self, options: list[str]) -> bool:
        self.gpud.kill()
        return await self._start(options)

    async def _start(self, options: list[str]) -> bool:
        log = ["-o", str(self.log)]
        self.gpud.under = (*strace(), "-D", "-f", "-qq", *log, *self.files, *options)
        with self.gpud.started() as notices:
            alive = await asyncio.to_thread(ready, self.gpud, notices)
        if alive:
            self.gpud.kill()  # strace would go on counting
        await self.recover([Reserve("", 0)], set())
        return not alive

    async def work(self, kinds: tuple[type[Operation], ...], options: list[str]) -> bool:
        """Operations that a running daemon is asked one after the other."""
        operations, answered = [kind("", 0) for kind in kinds], set()
        async with calling(self.gpud) as api:
            client = Client(api=api, witness=self.witness)
            for each in operations:
                await each.prepare(client)
            await quiet(api)
            with attached(self.gpud, [*options, "-o", str(self.log)]):
                try:
                    for each in operations:
                        await each.run(client)
                        answered.add(each)
                except grpc.aio.AioRpcError:
                    await asyncio.to_thread(self.gpud.process.wait, LIMIT_SECONDS)  # type: ignore[union-attr]
        killed = self.gpud.process is not None and self.gpud.process.poll() is not None
        await self.recover(operations, answered)
        return killed


def killing(call: str, number: int) -> list[str]:
    return ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]


def ready(gpud: Gpud, notices: socket.socket) -> bool:
    """Whether it became READY; else it died. Raises TimeoutError."""
    assert gpud.process is not None
    death = os.pidfd_open(gpud.process.pid)
    until = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < until:
            readable, _, _ = select.select([notices, death], [], [], until - time.monotonic())
            if death in readable:
                gpud.process.wait(LIMIT_SECONDS)
                return False
            if notices in readable and b"READY=1" in notices.recv(4096).splitlines():
                return True
    finally:
        os.close(death)
    raise TimeoutError


@contextmanager
def attached(gpud: Gpud, options: list[str]) -> Iterator[None]:
    """strace on the daemon that runs."""
    assert gpud.process is not None
    command = [*strace(), *options, "-p", str(gpud.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        try:
            assert b"attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.send_signal(signal.SIGINT)  # it lets go
            tracer.communicate(timeout=LIMIT_SECONDS)


async def test_starts_killed_at_every_call(killable: MakeGpud, tmp_path: Path) -> None:
    """The first start, and the one that finds the state of a daemon that was killed."""
    began = time.monotonic()
    proof = Proof(killable(0), tmp_path / "log")
    try:
        await proof.kill_at_every((*OF_FILES, "mkdir"), proof.first_start)
        await proof.kill_at_every(OF_FILES, proof.next_start)
    finally:
        proof.gpud.end()
    conclude("starts", [proof], began)


@pytest.mark.parametrize(
    ("scenario", "kinds"),
    [("operations of the ledger", LEDGER), ("a load", (Load,)), ("an unload", (Unload,))],
)
async def test_operations_killed_at_every_call(
    killable: MakeGpud, tmp_path: Path, scenario: str, kinds: tuple[type[Operation], ...]
) -> None:
    began = time.monotonic()
    proof = Proof(killable(0), tmp_path / "log")

    async def on_files(options: list[str]) -> bool:
        return await proof.work(kinds, ["-f", *proof.files, *options])

    async def on_folders(options: list[str]) -> bool:
        """The main thread by itself, which changes folders nowhere but in the state directory."""
        return await proof.work(kinds, options)

    await asyncio.to_thread(proof.gpud.start)
    try:
        await proof.kill_at_every(OF_FILES, on_files)
        if kinds is not LEDGER:
            await proof.kill_at_every(OF_FOLDERS, on_folders)
    finally:
        proof.gpud.end()
    conclude(scenario, [proof], began)


def conclude(scenario: str, proofs: list[Proof], began: float) -> None:
    kills = sum(proof.kills for proof in proofs)
    wrong = [problem for proof in proofs for problem in proof.wrong]
    record(
        f"R2 SIGKILL at each call that writes the state, {scenario}: calls",
        kills, kills, len(wrong), time.monotonic() - began,
    )  # fmt: skip
    assert not wrong, "\n".join(wrong)
    assert kills > 0
