"""What an engine is given, and what it opens: its address, its key, the file that was checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf import duration_pb2

from gpud.engines.engine import ENVIRONMENT_NAMES
from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, books, load, reaches, streaming, unload
from tests.models import phantoms, splitting
from tests.running import Api, Gpud, arguments, calling, refusal_of, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

KEY = "canary-of-the-key-0123456789"
GIVEN_BY_GPUD = {"GPUD_INSTANCE", "GPUD_RESERVATION", "GPUD_INSTANCE_TOKEN"}
LISTENING, LOOPBACK = "0A", "0100007F"  # as the kernel writes them
GRACE = duration_pb2.Duration(seconds=120)


def environment_of(pid: int) -> dict[str, str]:
    fields = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(field.split("=", 1) for field in fields if field)


def listens(pid: int) -> list[tuple[str, int]]:
    """Addresses, as the kernel writes them, and ports that a process listens on."""
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in own:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def status(endpoint: str, path: str, key: str = "", body: object = None) -> int:
    """Of an answer to somebody who shows this key."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(endpoint + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_an_engine_is_given_what_is_on_the_lists_and_listens_on_loopback_alone(
    modelled: MakeGpud, llama_server: Path
) -> None:
    hostile = {
        "LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_API_KEY": "canary", "PYTHONPATH": "/canary",
        "GGML_CANARY": "canary", "GPUD_CANARY": "canary",
    }  # fmt: skip
    daemon = modelled(llama_server, environment=hostile).start()
    async with calling(daemon) as api:
        made = await load(api)
        given = environment_of(made.pid)
        assert given.keys() <= ENVIRONMENT_NAMES | GIVEN_BY_GPUD
        assert "canary" not in repr(given)
        argv = arguments(made.pid).split(b"\0")
        assert argv[argv.index(b"--host") + 1] == b"127.0.0.1"
        told = urlsplit(made.endpoint)
        assert told.hostname == "127.0.0.1"
        assert listens(made.pid) == [(LOOPBACK, told.port)]
        await unload(api, instance=made.name)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "voice.key"
    path.write_text(f"# of the voice\n{KEY}\n")
    path.chmod(0o600)
    return path


def keyed(modelled: MakeGpud, llama_server: Path, key_file: Path, **settings: object) -> Gpud:
    models = f'[models.voice]\npath = "tiny.gguf"\napi_key_file = "{key_file}"\n'
    return modelled(llama_server, models=models, **settings)


async def test_an_engine_asks_for_its_key_in_every_life_of_the_daemon(
    modelled: MakeGpud, llama_server: Path, key_file: Path
) -> None:
    daemon = keyed(modelled, llama_server, key_file).start()
    async with calling(daemon) as api:
        made = await load(api, "voice")
        ask = {"prompt": "the", "max_tokens": 2}
        assert status(made.endpoint, "/v1/completions", body=ask) == 401
        assert status(made.endpoint, "/v1/completions", f"{KEY}x", ask) == 401
        assert status(made.endpoint, "/v1/completions", KEY, ask) == 200
        assert status(made.endpoint, "/health") == 200
        await asyncio.to_thread(daemon.restart)
        after = await reaches(api, made.name, pb.INSTANCE_STATE_READY)
        assert after.pid == made.pid
        ends = await unload(api, instance=made.name)
        assert ends[-1].phase == pb.UNLOAD_PHASE_STOPPED
        assert KEY not in repr(ends)


async def test_a_drain_sees_requests_through_the_key(
    modelled: MakeGpud, llama_server: Path, key_file: Path
) -> None:
    """Without it the engine would not tell, and a request in flight would be cut."""
    daemon = keyed(modelled, llama_server, key_file).start()
    async with calling(daemon) as api:
        made = await load(
            api, "voice", options=models_pb2.ModelOptions(context_length=8192, threads=1)
        )
        async with streaming(made.endpoint, 4000, KEY) as pieces:
            await anext(pieces)
            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(unload(api, instance=made.name, grace=GRACE))
                seen = [piece async for piece in pieces]
        ends = ending.result()
        assert json.loads(seen[-1])["timings"]["predicted_n"] == 4000
        assert any("1 requests in flight" in each.detail for each in ends)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.chmod(0o644), "is open to others"),
        (lambda path: path.write_text("#\n"), "holds no key"),
        (Path.unlink, "no such file"),
    ],
)
async def test_no_engine_is_started_open_because_its_key_is_bad(
    spoil: Callable[[Path], object],
    problem: str,
    modelled: MakeGpud,
    llama_server: Path,
    key_file: Path,
) -> None:
    spoil(key_file)
    daemon = keyed(modelled, llama_server, key_file).start()
    async with calling(daemon) as api:
        before = await books(api)
        call = api.instances.LoadModel(pb.LoadModelRequest(model="voice", devices=["host"]))
        refusal = await refused_stream(call)
        assert refusal.reason == "MODEL_FILE_INVALID"
        assert problem in refusal.message
        assert KEY not in refusal.message
        assert await books(api) == before


# The file that was checked.


async def test_a_model_in_parts_is_inherited_under_the_names_that_its_engine_looks_for(
    modelled: MakeGpud, llama_server: Path, tiny_model: Path
) -> None:
    """In a hub's cache those are links to files whose names say nothing."""
    daemon = modelled(
        llama_server, models='[models.parts]\npath = "hub/big-00001-of-00003.gguf"\n'
    )
    blobs, hub = daemon.directory / "models" / "blobs", daemon.directory / "models" / "hub"
    blobs.mkdir()
    hub.mkdir()
    parts = splitting.write_parts(tiny_model, blobs, "big", 8)
    assert len(parts) == 3
    for number, part in enumerate(parts):
        part.rename(blobs / f"blob{number}")
        (hub / part.name).symlink_to(f"../blobs/blob{number}")
    daemon.start()
    async with calling(daemon) as api:
        made = await load(api, "parts")
        assert made.tokens_per_second > 0
        await unload(api, instance=made.name)


@contextmanager
def swapping(at: Path, good: tuple[Path, Path], outside: Path) -> Iterator[None]:
    """A thread that puts one model after another at a path, some of them links out of the root."""
    done, aside = threading.Event(), at.with_name("aside")

    def swap() -> None:
        for source in cycle((*good, outside)):
            if done.is_set():
                return
            if source is outside:
                aside.symlink_to(source)
            else:
                shutil.copy(source, aside)
            aside.replace(at)
            # Long enough for a check to pass, short enough to hit the start behind it.
            done.wait(0.02)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def mapped_bytes(pid: int) -> set[int]:
    """Sizes of the models that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    inodes = {line.split()[4] for line in lines if ".gguf" in line or "/aside" in line}
    sizes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it is closed meanwhile: a client's, then
            status = os.stat(each)
            if str(status.st_ino) in inodes:
                sizes.add(status.st_size)
    return sizes


async def weights(api: Api, model: str) -> int:
    request = models_pb2.EstimateFootprintRequest(model=model, device="host")
    footprint = (await api.models.EstimateFootprint(request)).footprint
    return weights_of(footprint)


def weights_of(footprint: models_pb2.Footprint) -> int:
    kind = models_pb2.FOOTPRINT_WHAT_WEIGHTS
    return sum(item.bytes for item in footprint.items if item.what == kind)


async def test_a_model_swapped_under_its_load_is_the_one_checked_or_none(
    modelled: MakeGpud, llama_server: Path, tmp_path: Path
) -> None:
    names = ("one", "two")
    models = "".join(f'[models.{name}]\npath = "{name}.gguf"\n' for name in (*names, "swapped"))
    daemon = modelled(llama_server, models=models)
    root = daemon.directory / "models"
    for layers, name in enumerate(names, 1):
        phantoms.write_tiny(root / f"{name}.gguf", "--layers", str(layers))
    outside = tmp_path / "outside.gguf"
    phantoms.write_tiny(outside, "--layers", "4")
    shutil.copy(root / "one.gguf", root / "swapped.gguf")
    daemon.start()
    good = (root / "one.gguf", root / "two.gguf")
    async with calling(daemon) as api:
        sizes = {await weights(api, at.stem): at.stat().st_size for at in good}
        assert len(sizes) == 2
        outcomes = []
        with swapping(root / "swapped.gguf", good, outside):
            while outcomes.count("started") < 3 or len(outcomes) < 12:
                outcomes.append(await outcome(api, sizes))
        assert set(outcomes) <= {"started", "MODEL_FILE_INVALID"}
        assert {each[0] for each in (await books(api)).values()} == {0}


async def outcome(api: Api, sizes: dict[int, int]) -> str:
    """Of one load: whichever file was checked is the one that the engine has mapped."""
    call = api.instances.LoadModel(pb.LoadModelRequest(model="swapped", devices=["host"]))
    try:
        made = [message async for message in call][-1].instance
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    assert mapped_bytes(made.pid) == {sizes[weights_of(made.footprint)]}
    await unload(api, instance=made.name, force=True)
    return "started"
