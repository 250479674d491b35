"""One cell on a daemon: the phase, the fault, and the four things seen afterwards."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.fakes.stub_engine import write_stub
from tests.proof.faults.causes import Fault, fault_named
from tests.proof.faults.expected import Expectation
from tests.proof.faults.neighbour import KIND
from tests.proof.faults.phases import ALLOCATED_BYTES, Phase, phase_named
from tests.proof.faults.stage import Stage, staged
from tests.real_engine import write_tiny
from tests.running import Gpud

LOG_CHARACTERS = 3000
# Not in TMPDIR, which is not the same for every run.
LOCK = "/tmp/gpud-faults.lock"
# What is seen must stay for so long: what shows for a moment only does not count.
STEADY_SNAPSHOTS = 10
SETTINGS = {
    "GPUD_POLICY__RELEASE_DEADLINE": "1s",
    "GPUD_POLICY__BAND_HOLD": "200ms",
    # Each sample has its list: what is seen must not hang on which sample was the last.
    "GPUD_SAMPLING__PROCESSES_EVERY": "1",
}


def made(directory: Path, phase: Phase) -> Gpud:
    """A daemon with two cards that a scenario scripts, and a stub engine that has to be let go."""
    directory.mkdir()
    write_tiny(directory / "tiny.gguf")
    held = ["--hold", str(directory / "hold")]
    if phase.keeps_answers:
        held += ["--answer-after", str(directory / "answers")]
    stub = write_stub(directory, *held, "--allocate", str(ALLOCATED_BYTES), *phase.manners)
    return Gpud(
        directory=directory,
        cards=0,
        interval="20ms",
        devices=f'scenario = "{directory / "scenario.json"}"',
        extra=(
            f'[[devices.simulated]]\ncard = "{KIND}"\ncount = 2\n'
            f'[engines.llama_cpp]\nbinary = "{stub}"\n[models]\nroots = ["{directory}"]\n'
            '[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n'
        ),
        environment=dict(SETTINGS),
    )


async def play(
    directory: Path, library: Path, names: tuple[str, str], expected: Expectation
) -> tuple[Expectation, str]:
    """What is seen of fault × phase, in time as expected or else at last; and the daemon's log."""
    fault_name, phase_name = names
    phase, fault = phase_named(phase_name), fault_named(fault_name, phase_name)
    gpud = made(directory, phase)
    async with alone(), staged(gpud, library, vanishing=fault_name == "client vanishes") as stage:
        try:
            await befall(stage, phase, fault)
        except Exception as error:
            error.add_note(gpud.log[-LOG_CHARACTERS:])
            raise
        found: list[Expectation] = []

        async def agrees() -> bool:
            found.append(await seen(stage, expected))
            newest = found[-STEADY_SNAPSHOTS:]
            return newest == [expected] * STEADY_SNAPSHOTS

        with suppress(TimeoutError):
            await stage.until(agrees)
        await stage.probe()
        last = found[-1]
        code = " then ".join(stage.codes)
        return (
            Expectation(state=last.state, bytes=last.bytes, event=last.event, code=code),
            gpud.log[-LOG_CHARACTERS:],
        )


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """No other run of this on the host: a process counts on each simulated card of its name."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def befall(stage: Stage, phase: Phase, fault: Fault) -> None:
    """Into the phase, and the fault comes through."""
    fault.prepare(stage)
    await stage.start()
    await phase.bring(stage)
    await fault.before(stage)
    if fault.is_dead:
        await stage.mark()
        await phase.enter(stage)
    else:
        await phase.enter(stage)
        await stage.mark()
        await phase.check(stage)
    await fault.cause(stage)
    if fault.is_dead:
        await fault.recover(stage)
    await fault.come_through(stage)
    if not fault.ends_the_daemon:
        await phase.check(stage)
    phase.let_go(stage)


async def seen(stage: Stage, expected: Expectation) -> Expectation:
    """As it stands; the code is asked last."""
    return Expectation(
        state=await stage.state(),
        bytes=await stage.bytes(),
        event=await stage.told(expected.event),
        code=expected.code,
    )
