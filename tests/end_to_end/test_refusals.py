"""Models and engines that cannot be: refused in words, at their phase, with everything undone."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2
from tests.end_to_end.driving import books, event_types, instances, load, unload
from tests.running import Api, Gpud, Refusal, calling, refused_stream

MakeGpud = Callable[..., Gpud]
Code = grpc.StatusCode

BAD_FILE_SECONDS = 1.0
BAD_FILE_BYTES = 64 * 1024**2


def header(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def make_missing(root: Path, good: bytes) -> None:
    pass


def make_empty(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(b"")


def make_truncated(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(good[:-1000])


def make_cut_in_the_header(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(good[:300])


def make_garbage(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(bytes(range(256)) * 4096)


def make_fifo(root: Path, good: bytes) -> None:
    os.mkfifo(root / "bad.gguf")


def make_directory(root: Path, good: bytes) -> None:
    (root / "bad.gguf").mkdir()


def make_link_out_of_the_root(root: Path, good: bytes) -> None:
    outside = root.parent / "outside.gguf"
    outside.write_bytes(good)
    (root / "bad.gguf").symlink_to(outside)


def make_link_to_a_device(root: Path, good: bytes) -> None:
    (root / "bad.gguf").symlink_to("/dev/zero")


def make_countless_tensors(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(header(2**62, 0))


def make_countless_keys(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(header(0, 2**62) + b"\0" * 1000)


def make_endless_string(root: Path, good: bytes) -> None:
    (root / "bad.gguf").write_bytes(header(0, 1) + struct.pack("<Q", 2**63) + b"a" * 1000)


def make_endless_array(root: Path, good: bytes) -> None:
    key = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**40)
    (root / "bad.gguf").write_bytes(header(0, 1) + key + b"\0" * 10_000)


def make_nested_arrays(root: Path, good: bytes) -> None:
    nested = struct.pack("<IQ", 9, 1) * 100_000
    key = struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9) + nested
    (root / "bad.gguf").write_bytes(header(0, 1) + key)


BAD_FILES = [value for name, value in sorted(globals().items()) if name.startswith("make_")]


@pytest.fixture(scope="module")
def good(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()


async def refused_load(api: Api, model: str = "tiny", device: str = "host") -> Refusal:
    request = pb.LoadModelRequest(model=model, devices=[device])
    return await refused_stream(api.instances.LoadModel(request))


async def assert_undone(daemon: Gpud, api: Api, before: dict[str, tuple[int, int]]) -> pb.Instance:
    """Nothing is promised and nothing runs; the one instance tells what happened."""
    assert await books(api) == before
    assert [pid for pid in daemon.leftovers() if pid not in daemon_children(daemon)] == []
    (failed,) = await instances(api)
    assert failed.state == pb.INSTANCE_STATE_FAILED
    return failed


def daemon_children(daemon: Gpud) -> set[int]:
    """Its sampler, whose arguments may name our folder."""
    assert daemon.process is not None
    path = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    return set(map(int, path.read_text().split()))


def cpu_seconds(daemon: Gpud) -> float:
    """That it has taken by itself: how busy a host is says nothing of the daemon."""
    assert daemon.process is not None
    taken = psutil.Process(daemon.process.pid).cpu_times()
    return float(taken.user + taken.system)


def peak_bytes(daemon: Gpud) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__.removeprefix("make_"))
async def test_a_bad_model_file_is_refused_before_any_promise(
    stubbed: MakeGpud, make: Callable[[Path, bytes], None], good: bytes
) -> None:
    daemon = stubbed(models='[models.bad]\npath = "bad.gguf"\n')
    make(daemon.directory / "models", good)
    daemon.start()  # all the same
    async with calling(daemon) as api:
        before, memory = await books(api), peak_bytes(daemon)
        began = cpu_seconds(daemon)
        refusal = await refused_load(api, "bad")
        assert cpu_seconds(daemon) - began < BAD_FILE_SECONDS
        assert peak_bytes(daemon) - memory < BAD_FILE_BYTES
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "MODEL_FILE_INVALID")
        assert refusal.metadata["model"]
        failed = await assert_undone(daemon, api, before)
        assert failed.failure.phase == pb.LOAD_PHASE_VERIFY
        assert failed.reservation == ""
        assert not [told for told in await event_types(api) if told.startswith("reservation.")]
        shown = (await api.models.GetModel(models_pb2.GetModelRequest(name="bad"))).model
        assert shown.problem == refusal.message
        # The good one beside it loads.
        assert (await load(api)).state == pb.INSTANCE_STATE_READY
        await unload(api, model="tiny")


@pytest.mark.parametrize("path", ["../outside.gguf", "/etc/passwd", "a/../../outside.gguf"])
async def test_a_path_out_of_the_roots_is_refused(
    stubbed: MakeGpud, path: str, good: bytes
) -> None:
    daemon = stubbed(models=f'[models.bad]\npath = "{path}"\n')
    (daemon.directory / "outside.gguf").write_bytes(good)
    daemon.start()
    async with calling(daemon) as api:
        before = await books(api)
        assert (await refused_load(api, "bad")).reason == "MODEL_FILE_INVALID"
        await assert_undone(daemon, api, before)


async def test_an_engine_that_is_missing(modelled: MakeGpud, tmp_path: Path) -> None:
    daemon = modelled(tmp_path / "no-such-llama-server").start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_load(api)
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ENGINE_MISSING")
        assert "no-such-llama-server" in refusal.message
        failed = await assert_undone(daemon, api, before)
        assert failed.failure.phase == pb.LOAD_PHASE_DETECT


@pytest.mark.parametrize("phase", ["start", "bind", "load"])
async def test_an_engine_that_crashes(stubbed: MakeGpud, phase: str) -> None:
    daemon = stubbed("--crash-at", phase).start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_load(api)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "ENGINE_EXITED")
        assert refusal.metadata["phase"] == "LOAD"
        assert f"crashed in phase {phase}" in refusal.metadata["output_tail"]
        assert "exited with code 1" in refusal.message
        failed = await assert_undone(daemon, api, before)
        assert failed.last_exit.code == 1
        assert failed.failure.phase == pb.LOAD_PHASE_LOAD
        assert "instance.failed" in await event_types(api, failed.name)


async def test_an_engine_that_crashes_at_its_first_tokens(stubbed: MakeGpud) -> None:
    daemon = stubbed("--crash-at", "request").start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_load(api)
        assert refusal.reason in {"ENGINE_EXITED", "ENGINE_NOT_READY"}
        assert refusal.metadata["phase"] == "WARMUP"
        await assert_undone(daemon, api, before)


@pytest.mark.parametrize("phase", ["bind", "load"])
async def test_an_engine_that_hangs(stubbed: MakeGpud, phase: str) -> None:
    daemon = stubbed("--hang-at", phase, stall="5s").start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_load(api)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "ENGINE_NOT_READY")
        assert refusal.metadata["phase"] == "LOAD"
        assert f"hangs in phase {phase}" in refusal.metadata["output_tail"]
        await assert_undone(daemon, api, before)


async def test_an_engine_that_crashes_when_ready_gives_its_bytes_back(stubbed: MakeGpud) -> None:
    daemon = stubbed("--crash-at", "ready").start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_load(api)
        assert refusal.reason in {"ENGINE_EXITED", "ENGINE_NOT_READY"}
        await assert_undone(daemon, api, before)


async def test_a_load_that_does_not_fit_starts_nothing(stubbed: MakeGpud) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        before = await books(api)
        options = models_pb2.ModelOptions(context_length=2**24)
        request = pb.LoadModelRequest(model="tiny", devices=["gpu0"], options=options)
        refusal = await refused_stream(api.instances.LoadModel(request))
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "VRAM_INSUFFICIENT")
        assert refusal.metadata["gpu0.grantable_bytes"]
        failed = await assert_undone(daemon, api, before)
        assert failed.failure.phase == pb.LOAD_PHASE_ALLOCATE
        assert failed.reservation == ""
