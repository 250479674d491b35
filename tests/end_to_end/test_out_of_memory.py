"""An engine that gets no more memory: told by itself, or killed by the kernel."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import books, instances
from tests.fakes.stub_engine import write_stub
from tests.running import Gpud, calling, refused_stream

MakeGpud = Callable[..., Gpud]
LIMIT_BYTES = 64 * 2**20
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 64 MiB without swap; skipped where none may be made."""
    root, limit = (V1, "memory.limit_in_bytes") if V1.is_dir() else (V2, "memory.max")
    folder = root / f"gpud-test-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup may be made here: {error}")
    try:
        try:
            (folder / limit).write_text(str(LIMIT_BYTES))
        except OSError as error:
            pytest.skip(f"no memory cgroup may be limited here: {error}")
        for name, value in (("memory.swappiness", "0"), ("memory.swap.max", "0")):
            with suppress(OSError):
                (folder / name).write_text(value)
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def wrapped(path: Path, before: str, engine: Path) -> Path:
    """The engine, after a command, where it is to serve."""
    path.write_text(f'#!/bin/sh\ncase "$*" in *--port*) {before} ;; esac\nexec {engine} "$@"\n')
    path.chmod(0o755)
    return path


async def failed(daemon: Gpud) -> pb.Instance:
    """What a load came to that must fail; nothing of it is left."""
    async with calling(daemon) as api:
        request = pb.LoadModelRequest(model="tiny", devices=["host"])
        refusal = await refused_stream(api.instances.LoadModel(request))
        assert refusal.reason == "ENGINE_EXITED"
        (told,) = await instances(api)
        assert told.state == pb.INSTANCE_STATE_FAILED
        assert (await books(api))["host"] == (0, 0)
        assert daemon.leftovers() == []
        return told


async def test_an_engine_that_the_kernel_kills_for_memory(
    modelled: MakeGpud, tmp_path: Path, cgroup: Path
) -> None:
    """Its SIGKILL is told from somebody's by the kernel's count."""
    (tmp_path / "stub").mkdir()
    stub = write_stub(tmp_path / "stub", "--allocate", str(4 * LIMIT_BYTES))
    engine = wrapped(tmp_path / "engine", f"echo $$ > {cgroup}/cgroup.procs", stub)
    told = await failed(modelled(engine).start())
    assert told.last_exit.signal == 9
    assert told.last_exit.meaning == "killed by the kernel, the host was out of memory"
    assert told.failure.phase == pb.LOAD_PHASE_LOAD


@pytest.mark.engine
async def test_an_engine_that_is_refused_memory_says_so(
    modelled: MakeGpud, llama_server: Path, tmp_path: Path
) -> None:
    """The real llama-server in an address space that its cache does not fit."""
    # Less than the cache alone; and on a host of many cores no address space goes to arenas.
    before = "export MALLOC_ARENA_MAX=1; ulimit -v 500000"
    engine = wrapped(tmp_path / "engine", before, llama_server)
    daemon = modelled(engine)
    daemon.extra = daemon.extra.replace("context_length = 512", "context_length = 1048576")
    told = await failed(daemon.start())
    assert told.last_exit.HasField("code") or told.last_exit.signal == 6
    assert "memory" in told.last_exit.meaning
