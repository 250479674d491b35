"""What a crash can leave: processes that no record knows are listed, and only ours are ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gpud.instances.adoption import traces
from gpud.v1 import instances_pb2 as pb
from gpud.v1.node_pb2 import GetNodeRequest
from tests.end_to_end.driving import PATIENCE_SECONDS, books, event_types, instances, load, unload
from tests.fakes.stub_engine import write_stub
from tests.instances import unruly
from tests.running import Api, Gpud, arguments, calling, refused
from tests.running import pids as pids_now

MakeGpud = Callable[..., Gpud]
GPUCTL = [sys.executable, "-c", "from gpuctl.main import main; main()"]


async def orphans(api: Api) -> list[pb.Orphan]:
    """Of this test: other tests' daemons and engines may run beside it."""
    answer = await api.instances.ListOrphans(pb.ListOrphansRequest(page_size=1000))
    return list(answer.orphans)


async def ours(api: Api) -> list[pb.Orphan]:
    return [each for each in await orphans(api) if each.provable]


async def counted(api: Api) -> int:
    """How many the node tells of, once it has looked."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            node = (await api.node.GetNode(GetNodeRequest())).node
            if node.HasField("orphan_count"):
                return node.orphan_count


async def status(daemon: Gpud) -> str:
    return (await gpuctl(daemon, "status")).stdout


def lose_the_records(daemon: Gpud) -> None:
    """The database is gone, as after a bad disk; the folders are there."""
    for path in daemon.state.glob("state.db*"):
        path.unlink()


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def gone(*pids: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(map(alive, pids)):  # noqa: ASYNC110 — others' ends cannot be awaited
            await asyncio.sleep(0.005)


@contextmanager
def stranger(**environment: str) -> Iterator[int]:
    """A process of somebody else that says what it likes in its environment."""
    with subprocess.Popen(
        [sys.executable, unruly.__file__, "obey"],
        env={"PATH": "/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def looking_into(folder: Path) -> Iterator[int]:
    """Somebody's shell in an instance's folder."""
    with subprocess.Popen(["sleep", "60"], cwd=folder) as process:
        yield process.pid
        process.kill()


async def until_it_has_a_pid(api: Api) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not [each for each in await instances(api) if each.pid]:
            pass


@asynccontextmanager
async def lost(daemon: Gpud) -> AsyncIterator[tuple[Api, pb.Instance]]:
    """A daemon whose former life loaded an engine, and whose records were lost then."""
    daemon.start()
    async with calling(daemon) as api:
        made = await load(api)
    await asyncio.to_thread(daemon.kill)
    lose_the_records(daemon)
    await asyncio.to_thread(daemon.start)
    async with calling(daemon) as api:
        yield api, made


@pytest.mark.engine
async def test_an_engine_whose_record_is_lost_is_listed_and_ended_on_order(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server)
    async with lost(daemon) as (api, made):
        shim = psutil.Process(made.pid).ppid()
        assert await instances(api) == []
        found = {each.pid: each for each in await ours(api)}
        assert set(found) == {shim, made.pid}
        engine = found[made.pid]
        assert engine.instance == made.name
        assert (engine.reason, engine.uid) == ("", os.geteuid())
        assert "llama-server" in engine.command
        assert engine.resident_bytes > 0
        assert "orphan.found" in await event_types(api, made.name)
        # Nobody has ordered anything yet.
        assert alive(made.pid)

        asked = pb.ReapOrphansRequest(request_id="once", pids=[made.pid])
        answer = await api.instances.ReapOrphans(asked)
        assert {each.pid for each in answer.reaped} == {shim, made.pid}, "with its tree"
        assert not answer.remaining
        await gone(shim, made.pid)
        assert await api.instances.ReapOrphans(asked) == answer
        assert await ours(api) == []
        assert "orphan.reaped" in await event_types(api, made.name)
        assert list((daemon.state / "instances").iterdir()) == []
        assert daemon.leftovers() == []


@pytest.mark.engine
async def test_a_shim_and_a_daemon_that_are_killed_leave_an_engine_without_record(
    modelled: MakeGpud, llama_server: Path
) -> None:
    """Nobody is its parent any more; its token still proves it."""
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        made = await load(api)
    await asyncio.to_thread(daemon.kill)
    os.kill(psutil.Process(made.pid).ppid(), signal.SIGKILL)
    lose_the_records(daemon)
    await asyncio.to_thread(daemon.start)
    async with calling(daemon) as api:
        assert [each.pid for each in await ours(api)] == [made.pid]
        answer = await api.instances.ReapOrphans(pb.ReapOrphansRequest())
        assert [each.pid for each in answer.reaped] == [made.pid]
        await gone(made.pid)


async def test_a_stranger_that_names_an_instance_is_listed_and_never_ended(
    stubbed: MakeGpud,
) -> None:
    """By name alone, with a token that no folder has, and beside one that is ours."""
    daemon = stubbed()
    async with lost(daemon) as (api, made):
        id_ = made.name.removeprefix("instances/")
        fake = {"GPUD_INSTANCE": id_, "GPUD_INSTANCE_TOKEN": "0" * 32}
        with stranger(GPUD_INSTANCE=id_) as named, stranger(**fake) as tokened:
            found = {each.pid: each for each in await orphans(api)}
            assert not found[named].provable
            assert "holds no token" in found[named].reason
            assert not found[tokened].provable
            assert "no folder of this state directory knows its token" in found[tokened].reason

            told = await gpuctl(daemon, "orphans")
            assert told.returncode == 0
            header, *rows = told.stdout.splitlines()
            assert header.split()[:4] == ["PID", "INSTANCE", "OURS", "AGE"]
            cells = {int(row.split()[0]): row.split()[1:3] for row in rows}
            assert (cells[made.pid], cells[named]) == ([made.name, "yes"], [made.name, "no"])

            refusal = await gpuctl(daemon, "orphans", "--reap", str(named), str(tokened))
            assert refusal.returncode == 1
            assert "not ended: 2 processes" in refusal.stderr
            assert "holds no token" in refusal.stderr
            ended = await gpuctl(daemon, "orphans", "--reap", "-o", "json")
            assert ended.returncode == 0, ended.stderr
            answer = json.loads(ended.stdout)
            assert made.pid in {each["pid"] for each in answer["reaped"]}
            assert {named, tokened} <= {each["pid"] for each in answer["refused"]}
            assert f"left alone: {named}" in ended.stderr
            assert alive(named)
            assert alive(tokened)
            await gone(made.pid)


async def test_the_folder_alone_is_all_that_proves(stubbed: MakeGpud) -> None:
    """With the whole state directory lost, nothing can be proved, and nothing is ended."""
    daemon = stubbed().start()
    async with calling(daemon) as api:
        made = await load(api)
    await asyncio.to_thread(daemon.kill)
    daemon.state.rename(daemon.directory / "lost")
    await asyncio.to_thread(daemon.start)
    async with calling(daemon) as api:
        # It looked by itself, for nobody else would know: others' on this host count as well.
        assert await counted(api) >= 1
        assert re.search("^[0-9]+ orphans?: see `gpuctl orphans`$", await status(daemon), re.M)
        found = {each.pid: each for each in await orphans(api)}
        assert not found[made.pid].provable
        refusal = await refused(
            api.instances.ReapOrphans(pb.ReapOrphansRequest(pids=[made.pid, os.getpid()]))
        )
        assert refusal.reason == "ORPHAN_NOT_FOUND"
        answer = await api.instances.ReapOrphans(pb.ReapOrphansRequest())
        assert not answer.reaped
        assert alive(made.pid)


async def test_what_runs_in_its_place_is_no_orphan(stubbed: MakeGpud, tmp_path: Path) -> None:
    """Not while it loads, serves or is stopped; nor who looks into its folder."""
    hold = tmp_path / "hold"
    daemon = stubbed("--hold", str(hold), "--ignore-term").start()
    async with calling(daemon) as api:
        loading = asyncio.ensure_future(load(api))
        await until_it_has_a_pid(api)
        mine = str(daemon.directory)
        assert not [each for each in await orphans(api) if mine in each.command]
        hold.touch()
        made = await loading
        folder = daemon.state / "instances" / made.name.removeprefix("instances/")
        with looking_into(folder) as shell:
            assert shell not in {each.pid for each in await orphans(api)}
            stopping = asyncio.ensure_future(unload(api, instance=made.name))
            while not stopping.done():
                assert not [each for each in await orphans(api) if mine in each.command]
        assert await ours(api) == []


async def test_trees_that_fork_and_clear_their_environment_are_reaped_whole(
    modelled: MakeGpud, tmp_path: Path
) -> None:
    """An engine whose descendants hide in sessions of their own, without any sign of us."""
    pids = tmp_path / "pids"
    stub = write_stub(tmp_path)
    wild = tmp_path / "wild"
    wild.mkdir()
    script = wild / "llama-server"
    unruled = f"{sys.executable} {unruly.__file__}"
    beside = "".join(
        f"{unruled} {mode} {at} >/dev/null 2>&1 &\n"
        for mode, at in (("clear_environment", pids), ("comet", wild / "comet"))
    )
    script.write_text(f'#!/bin/sh\ncase "$*" in *--port*) {beside} ;; esac\nexec {stub} "$@"\n')
    script.chmod(0o755)
    async with lost(modelled(script)) as (api, made):
        hidden = [int(line) for line in pids.read_text().split()]
        found = {each.pid for each in await ours(api)}
        assert made.pid in found
        assert set(hidden) <= found, "below the shim, which is ours"
        answer = await api.instances.ReapOrphans(pb.ReapOrphansRequest())
        assert found <= {each.pid for each in answer.reaped}
        await gone(made.pid, *hidden)
        assert not [pid for pid in pids_now() if str(wild / "comet").encode() in arguments(pid)]
        assert (await books(api))["host"] == (0, 0)


async def gpuctl(daemon: Gpud, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*GPUCTL, "--address", f"unix://{daemon.socket}", *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def test_a_process_is_not_killed_once_its_pid_is_another_s() -> None:
    """What was seen is compared with what is there, by its start and its token."""
    with stranger(GPUD_INSTANCE="x", GPUD_INSTANCE_TOKEN="t") as pid:
        (seen,) = [each for each in traces.find(Path("/nonexistent")) if each.pid == pid]
        earlier = replace(seen, start_time=seen.start_time - 1)
        other = replace(seen, token="another", parent=1)
        assert traces.send([earlier, other], (signal.SIGKILL,)) == []
        assert alive(pid)
        assert traces.send([seen], (signal.SIGKILL,)) == [pid]
