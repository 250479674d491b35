"""What engines wrote, as people ask for it: bounded, since a moment, after an end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, instances, load, reaches
from tests.running import Api, Gpud, calling

MakeGpud = Callable[..., Gpud]


async def told(api: Api, request: pb.TailOutputRequest) -> list[str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [line async for part in api.instances.TailOutput(request) for line in part.lines]


def since(name: str, wall: float, lines: int = 0) -> pb.TailOutputRequest:
    request = pb.TailOutputRequest(instance=name, lines=lines)
    request.since.FromNanoseconds(int(wall * 1e9))
    return request


@pytest.mark.engine
async def test_since_a_moment_is_what_was_written_since(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        before = time.time()
        made = await load(api)
        every = await told(api, since(made.name, before))
        assert any("listening" in line for line in every)
        assert every[-3:] == await told(api, since(made.name, before, lines=3))
        assert await told(api, since(made.name, time.time() + 3600)) == []
        # Times are kept by the shim, which outlives the daemon.
        daemon.restart()
    async with calling(daemon) as api:
        assert (await told(api, since(made.name, before)))[: len(every)] == every


async def test_what_the_daemon_did_not_see_end_is_told_with_its_last_lines(
    stubbed: MakeGpud,
) -> None:
    daemon = stubbed(models='restart = "never"\n').start()
    async with calling(daemon) as api:
        made = await load(api)
    daemon.kill()
    os.kill(made.pid, signal.SIGKILL)
    daemon.start()
    async with calling(daemon) as api:
        (found,) = await instances(api)
        found = await reaches(api, found.name, pb.INSTANCE_STATE_FAILED)
        assert "while the daemon was away" in found.failure.message
        assert "; its last lines: " in found.failure.message
