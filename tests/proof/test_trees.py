"""R7: trees that take every way out are gone whole, and their bytes are free only after that."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.instances.tree.launcher import LaunchSpec, ProcessLauncher
from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.conftest import modelled  # noqa: F401 — a fixture
from tests.end_to_end.driving import PATIENCE_SECONDS, books, load
from tests.fakes.stub_engine import write_stub
from tests.instances import unruly
from tests.proof.record import PROVING, asked, record
from tests.running import Api, Gpud, calling

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]
MakeGpud = Callable[..., Gpud]

MODES = ("ignore_term", "new_session", "double_fork", "clear_environment", "fork_loop", "comet")
GONE_SECONDS = 1.0  # held against in `make prove` alone: elsewhere the machine is shared


def of_program(directory: Path) -> set[int]:
    """Living processes whose command line names the directory: forks keep it."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in words:
                found.add(int(entry))
    return found


async def end_one(mode: str, folder: Path) -> tuple[float, set[int]]:
    """Seconds until a tree was told gone, and what of it still lived then."""
    os.mkdir(folder)
    clock = SystemClock()
    tree = await ProcessLauncher(clock, clock.now().boot_id).spawn(
        LaunchSpec(
            instance="i-7",
            reservation="r-7",
            argv=(sys.executable, unruly.__file__, mode, str(folder / "pids")),
            environment={"PATH": "/usr/bin:/bin"},
            directory=folder,
            token=secrets.token_hex(16),
        )
    )
    await tree.go()
    sign = folder / ("output.log" if mode == "ignore_term" else "pids")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not sign.exists() or not sign.stat().st_size:  # noqa: ASYNC110 — not ours
            await asyncio.sleep(0.002)
        began = time.monotonic()
        tree.terminate()
        tree.kill()
        await tree.gone()
    return time.monotonic() - began, of_program(folder)


async def test_trees_are_gone_whole(tmp_path: Path) -> None:
    count, wrong, slowest, began = asked(len(MODES), 100), [], 0.0, time.monotonic()
    for number, mode in enumerate(islice(cycle(MODES), count)):
        seconds, left = await end_one(mode, tmp_path / f"{number}-{mode}")
        slowest = max(seconds, slowest)
        if left or (PROVING and seconds > GONE_SECONDS):
            wrong.append(f"{mode}: {seconds:.3f} s, left {left}")
    record("R7 trees gone whole: trees", count, count, len(wrong), time.monotonic() - began)
    print(f"the slowest took {slowest * 1000:.0f} ms")
    assert not wrong, "\n".join(wrong)


async def free_after(api: Api, daemon: Gpud, folder: Path) -> list[str]:
    """What lived, or was free already, when the end of the tree was told."""
    made = await load(api)
    name, wrong, seen = made.name, [], False
    held = (await books(api))["host"][0]
    call = api.instances.UnloadModel(pb.UnloadModelRequest(instance=name))
    async for told in call:
        if told.phase < pb.UNLOAD_PHASE_FREE and of_program(folder):
            granted = (await books(api))["host"][0]
            if granted != held and of_program(folder):
                wrong.append(f"{granted} of {held} B were booked while it lived")
        if told.phase == pb.UNLOAD_PHASE_FREE:
            seen = True
            if of_program(folder) or daemon.leftovers():
                wrong.append(f"its bytes go, and it lives: {of_program(folder)}")
    if not seen or (await books(api))["host"] != (0, 0):
        wrong.append(f"not freed: {await books(api)}")
    return wrong


async def test_bytes_are_free_only_after_the_tree(
    modelled: MakeGpud,  # noqa: F811
    tmp_path: Path,
) -> None:
    """An engine that goes when asked, beside descendants that do not."""
    folder, wild = tmp_path / "stub", tmp_path / "wild"
    folder.mkdir()
    wild.mkdir()
    stub, engine = write_stub(folder), tmp_path / "llama-server"
    daemon, wrong, began = modelled(engine), [], time.monotonic()
    engine.write_text("#!/bin/sh\nexit 1\n")
    engine.chmod(0o755)
    daemon.start()
    async with calling(daemon) as api:
        for mode in MODES:
            beside = f"{sys.executable} {unruly.__file__} {mode} {wild / mode} >/dev/null 2>&1 &"
            fresh = engine.with_suffix(".new")
            fresh.write_text(
                f'#!/bin/sh\ncase "$*" in *--port*) {beside}\n;; esac\nexec {stub} "$@"\n'
            )
            fresh.chmod(0o755)
            fresh.replace(engine)
            wrong += [f"{mode}: {each}" for each in await free_after(api, daemon, wild)]
    seconds = time.monotonic() - began
    record("R7 bytes free only after: trees", len(MODES), len(MODES), len(wrong), seconds)
    assert not wrong, "\n".join(wrong)
