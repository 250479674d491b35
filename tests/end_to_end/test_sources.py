"""Models that are registered, and fetched, while a daemon runs: from a URL to READY, or not."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2 as m
from tests.end_to_end.conftest import MakeGpud
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    instances,
    load,
    load_messages,
    streaming,
    unload,
)
from tests.fakes.stub_engine import write_stub
from tests.models.sources.downloading import left
from tests.models.sources.hub_server import Hub
from tests.models.sources.hub_server import serving as serving_hub
from tests.models.sources.origin import (
    WAIT_SECONDS,
    Origin,
    endless,
    held,
    serving,
    status,
)
from tests.running import Api, Gpud, Refusal, calling, refused, refused_stream

ENDED = (pb.INSTANCE_STATE_STOPPED, pb.INSTANCE_STATE_FAILED)


@pytest.fixture
def origin(tiny_model: Path) -> Iterator[Origin]:
    """A server that has the tiny model."""
    with serving(Origin(tiny_model.read_bytes())) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Gpud]:
    """One that tests leave as they found it; a model of its configuration has a wrong sum."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "roots").mkdir()
    shutil.copy(tiny_model, folder / "roots" / "tiny.gguf")
    made = Gpud(directory=folder, cards=2)
    made.extra = (
        f'[engines.llama_cpp]\nbinary = "{write_stub(folder)}"\n'
        f'[models]\nroots = ["{folder}/roots"]\nmax_download_bytes = "64MiB"\n'
        "allow_http = true\n"
        f'[models.wrong]\npath = "tiny.gguf"\nsha256 = "{"0" * 64}"\n'
        f'[sockets.operator]\npath = "{folder}/operator.sock"\n'
    )
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
async def api(shared: Gpud) -> AsyncIterator[Api]:
    """Afterwards nothing is loaded, registered, or downloaded."""
    async with calling(shared) as made:
        yield made
        for each in await instances(made):
            if each.state not in ENDED:
                await unload(made, instance=each.name, force=True)
        for model in (await made.models.ListModels(m.ListModelsRequest())).models:
            if model.registered:
                await made.models.DeleteModel(m.DeleteModelRequest(name=model.name))
        assert left(shared.state / "models") == []


@pytest.fixture
async def far(api: Api, origin: Origin) -> m.Model:
    """A registered model that has to be fetched."""
    return await register(
        api, "far", url=f"{origin.url}?key=canary", sha256=origin.sha256,
        options=m.ModelOptions(context_length=512, parallel=1),
    )  # fmt: skip


@pytest.fixture
def daemon(stubbed: MakeGpud, origin: Origin) -> Gpud:
    """One of a test's own, with a model of the configuration that has to be fetched."""
    made = stubbed()
    # What is registered comes from a server of this host, which is not encrypted.
    made.extra = made.extra.replace("[models]\n", "[models]\nallow_http = true\n") + (
        f'\n[models.far]\nurl = "{origin.url}?key=canary"\nsha256 = "{origin.sha256}"\n'
        "context_length = 512\nparallel = 1\n"
    )
    return made


async def register(api: Api, name: str = "new", **fields: Any) -> m.Model:
    request = m.RegisterModelRequest(name=name, **fields)
    return (await api.models.RegisterModel(request)).model


async def shown(api: Api, name: str) -> m.Model:
    return (await api.models.GetModel(m.GetModelRequest(name=name))).model


async def failed_load(api: Api, model: str, *, phase: str = "VERIFY") -> Refusal:
    """A load that is refused in a phase, and leaves nothing booked."""
    before = await books(api)
    call = api.instances.LoadModel(pb.LoadModelRequest(model=model, devices=["host"]))
    async with asyncio.timeout(PATIENCE_SECONDS):
        refusal = await refused_stream(call)
    failed = (await instances(api))[-1]
    assert failed.state == pb.INSTANCE_STATE_FAILED
    assert failed.failure.reason == refusal.reason
    assert pb.LoadPhase.Name(failed.failure.phase) == f"LOAD_PHASE_{phase}"
    assert await books(api) == before
    return refusal


def begin(api: Api, model: str = "far", device: str = "host") -> Any:
    return api.instances.LoadModel(pb.LoadModelRequest(model=model, devices=[device]))


async def fetching(call: Any) -> pb.Instance:
    """The instance, once some of its file is here."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (message := await call.read()).detail.startswith("downloads"):
            pass
    return message.instance


async def rest(call: Any) -> pb.LoadModelResponse:
    """The last that is told."""
    last = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (message := await call.read()) is not grpc.aio.EOF:
            last = message
    assert last is not None
    return last


# From a URL to READY.


async def test_a_model_is_fetched_before_it_is_loaded(
    shared: Gpud, api: Api, far: m.Model, origin: Origin
) -> None:
    before = await shown(api, "far")
    assert (before.problem, before.downloaded_bytes) == ("", 0)
    assert before.source.url == f"{origin.url}?…"
    origin.manners.append(held(1000))
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(load_messages(api, "far"))
        assert await asyncio.to_thread(origin.holding.wait, WAIT_SECONDS)
        # No memory is held meanwhile.
        assert {granted for granted, _ in (await books(api)).values()} == {0}
        origin.go_on.set()
    assert loading.result()[-1].instance.state == pb.INSTANCE_STATE_READY
    after = await shown(api, "far")
    assert after.downloaded_bytes == len(origin.content)
    (file,) = after.files
    assert (file.size_bytes, file.sha256) == (len(origin.content), origin.sha256)
    assert left(shared.state / "models") == [f"sha256-{origin.sha256}.gguf"]
    # What proves the right to fetch it is told nowhere.
    assert "canary" not in shared.log
    assert "canary" not in str(after)
    # The next load fetches nothing.
    await unload(api, model="far")
    await load(api, "far")
    assert len(origin.requests) == 1


async def test_its_progress_is_told(api: Api, far: m.Model, origin: Origin) -> None:
    origin.manners.append(held(1000))
    seen: list[str] = []

    async def follow() -> None:
        call = api.instances.LoadModel(pb.LoadModelRequest(model="far", devices=["host"]))
        async for message in call:
            if message.phase == pb.LOAD_PHASE_VERIFY:
                seen.append(message.detail)
                if message.detail.startswith("downloads"):
                    assert 0 < message.fraction < 1
                    origin.go_on.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await follow()
    assert any(each.startswith("downloads 1000 B of") for each in seen), seen


async def test_two_loads_wait_for_one_download(api: Api, far: m.Model, origin: Origin) -> None:
    origin.manners.append(held(1000))
    calls = [begin(api, device=device) for device in ("host", "gpu0")]
    for call in calls:
        await fetching(call)
    origin.go_on.set()
    for call in calls:
        assert (await rest(call)).instance.state == pb.INSTANCE_STATE_READY
    assert len(origin.requests) == 1


async def test_an_unload_stops_a_download_and_the_next_load_goes_on(
    shared: Gpud, api: Api, far: m.Model, origin: Origin
) -> None:
    origin.manners.append(held(1000))
    call = begin(api)
    await unload(api, instance=(await fetching(call)).name)
    assert (await refused(rest(call))).reason == "LOAD_CANCELLED"
    origin.go_on.set()
    folder, part = shared.state / "models", f"sha256-{origin.sha256}.gguf.part"
    assert left(folder) == [part, f"{part}.json"]
    await load(api, "far")
    assert origin.requests[-1]["range"].startswith("bytes=")
    assert left(folder) == [f"sha256-{origin.sha256}.gguf"]


async def test_a_daemon_killed_in_a_download_goes_on_with_it(daemon: Gpud, origin: Origin) -> None:
    daemon.start()
    origin.manners.append(held(1000))
    async with calling(daemon) as api:
        name = (await fetching(begin(api))).name
        daemon.kill()
    origin.go_on.set()
    daemon.start()
    async with calling(daemon) as api:
        await ended(api, name)
        (lost,) = await instances(api)
        assert (lost.name, lost.failure.reason) == (name, "INSTANCE_LOST")
        await load(api, "far")
    assert origin.requests[-1]["range"].startswith("bytes=")


async def ended(api: Api, name: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _ in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            pass


# What does not come: phase, state, code, and nothing left behind.


async def test_a_server_that_refuses(shared: Gpud, api: Api, far: m.Model, origin: Origin) -> None:
    origin.always = status(404)
    refusal = await failed_load(api, "far")
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION, "DOWNLOAD_REFUSED"
    )  # fmt: skip
    assert "404 Not Found" in refusal.message
    assert "canary" not in refusal.message
    assert left(shared.state / "models") == []


async def test_a_file_that_is_another(
    shared: Gpud, api: Api, far: m.Model, origin: Origin
) -> None:
    promised = origin.sha256
    origin.content = origin.content[::-1]
    refusal = await failed_load(api, "far")
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FILE_INVALID"
    )  # fmt: skip
    assert promised in refusal.message
    assert origin.sha256 in refusal.message
    assert left(shared.state / "models") == []


async def test_a_body_without_an_end(shared: Gpud, api: Api, far: m.Model, origin: Origin) -> None:
    origin.always = endless
    refusal = await failed_load(api, "far")
    assert refusal.reason == "DOWNLOAD_REFUSED"
    assert "models.max_download_bytes" in refusal.message
    assert left(shared.state / "models") == []


async def test_a_download_that_was_changed_afterwards(
    shared: Gpud, api: Api, far: m.Model, origin: Origin
) -> None:
    await load(api, "far")
    await unload(api, model="far")
    (name,) = left(shared.state / "models")
    file = shared.state / "models" / name
    content = bytearray(origin.content)
    content[-1] ^= 1
    file.write_bytes(content)
    refusal = await failed_load(api, "far")
    assert refusal.reason == "MODEL_FILE_INVALID"
    assert "remove it, a load fetches it anew" in refusal.message
    file.unlink()
    await load(api, "far")


async def test_the_sum_of_a_local_file_is_looked_at(api: Api, origin: Origin) -> None:
    refusal = await failed_load(api, "wrong")
    assert refusal.reason == "MODEL_FILE_INVALID"
    assert f"its checksum is {origin.sha256}, promised was {'0' * 64}" in refusal.message
    await register(api, "right", path="tiny.gguf", sha256=origin.sha256)
    await load(api, "right")
    assert (await shown(api, "right")).sha256 == origin.sha256


# Registered.


async def test_a_registered_model_is_there_for_good_until_it_is_deleted(
    daemon: Gpud, origin: Origin
) -> None:
    daemon.start()
    async with calling(daemon) as api:
        said = {"options": m.ModelOptions(parallel=2), "labels": {"service": "voice"}}
        made = await register(api, path="tiny.gguf", owner="anna", request_id="one", **said)
        assert (made.name, made.owner, made.registered) == ("models/new", "anna", True)
        assert made.HasField("create_time")
        again = await register(api, path="tiny.gguf", owner="anna", request_id="one", **said)
        assert again == made
        twice = await refused(register(api, path="tiny.gguf"))
        assert twice.reason == "WRONG_STATE"
        assert "registered already by anna" in twice.message
    daemon.restart()
    async with calling(daemon) as api:
        assert (await shown(api, "new")).options.parallel == 2
        assert (await shown(api, "new")).labels == {"service": "voice"}
        ready = await load(api, "new")
        assert ready.model == "models/new"
        busy = await refused(api.models.DeleteModel(m.DeleteModelRequest(name="new")))
        assert busy.reason == "WRONG_STATE"
        assert f"loaded as {ready.name}" in busy.message
        await unload(api, instance=ready.name)
        await api.models.DeleteModel(m.DeleteModelRequest(name="new", request_id="two"))
        await api.models.DeleteModel(m.DeleteModelRequest(name="new", request_id="two"))
        assert await event_types(api, "models/new") == ["model.registered", "model.deleted"]
    daemon.restart()
    async with calling(daemon) as api:
        gone = await refused(api.models.GetModel(m.GetModelRequest(name="new")))
        assert gone.reason == "MODEL_NOT_FOUND"


async def test_what_was_downloaded_goes_with_the_last_entry_of_it(
    shared: Gpud, api: Api, origin: Origin
) -> None:
    folder = shared.state / "models"
    for name in ("one", "two"):
        await register(api, name, url=origin.url, sha256=origin.sha256)
    await load(api, "one")
    await unload(api, model="one")
    freed = []
    for name in ("one", "two"):
        assert left(folder) == [f"sha256-{origin.sha256}.gguf"]
        rehearsed = m.DeleteModelRequest(name=name, validate_only=True)
        assert (await api.models.DeleteModel(rehearsed)).freed_bytes == 0
        deleted = await api.models.DeleteModel(m.DeleteModelRequest(name=name))
        freed.append(deleted.freed_bytes)
    assert freed == [0, len(origin.content)]
    assert left(folder) == []


async def test_what_was_to_go_when_the_daemon_was_killed_goes_when_it_is_back(
    daemon: Gpud,
) -> None:
    folder = daemon.state / "models"
    daemon.start()
    daemon.stop()
    with sqlite3.connect(daemon.state / "state.db") as store:
        for name in ("a", "b"):  # their entries are gone, and what was downloaded is here
            body = json.dumps(str(folder)).encode()
            row = ("removal", f"sha256-{name * 64}.gguf", body)
            store.execute("INSERT INTO rows (kind, id, body) VALUES (?, ?, ?)", row)
            folder.mkdir(exist_ok=True)
            (folder / f"{row[1]}.part").write_bytes(b"GGUF")
    store.close()
    (folder / f"sha256-{'c' * 64}.gguf").write_bytes(b"mine")
    daemon.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while left(folder) != [f"sha256-{'c' * 64}.gguf"]:  # noqa: ASYNC110 — of its threads
            await asyncio.sleep(0.005)


async def test_what_was_downloaded_may_stay(shared: Gpud, api: Api, far: m.Model) -> None:
    await load(api, "far")
    await unload(api, model="far")
    request = m.DeleteModelRequest(name="far", keep_files=True)
    assert (await api.models.DeleteModel(request)).freed_bytes == 0
    (name,) = left(shared.state / "models")
    (shared.state / "models" / name).unlink()


async def test_an_entry_of_the_configuration_comes_first(daemon: Gpud, origin: Origin) -> None:
    daemon.start()
    async with calling(daemon) as api:
        taken = await refused(register(api, "tiny", path="tiny.gguf"))
        assert taken.reason == "WRONG_STATE"
        fixed = await refused(api.models.DeleteModel(m.DeleteModelRequest(name="tiny")))
        assert fixed.reason == "WRONG_STATE"
        assert "[models.tiny]" in fixed.message
        await register(api, "late", path="tiny.gguf", owner="anna")
    daemon.extra += '[models.late]\npath = "tiny.gguf"\ncontext_length = 256\n'
    daemon.restart()
    async with calling(daemon) as api:
        late = await shown(api, "late")
        assert (late.registered, late.options.context_length) == (False, 256)
        assert "hides the one that anna registered" in late.notice
        await api.models.DeleteModel(m.DeleteModelRequest(name="late"))
        assert (await shown(api, "late")).notice == ""


WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("path", {"path": "/etc/passwd"}),
    ("path", {"path": "../tiny.gguf"}),
    ("mmproj", {"path": "tiny.gguf", "mmproj": "/etc/passwd"}),
    ("url", {"url": "ftp://example.com/x", "sha256": "0" * 64}),
    ("max_num_seqs", {"path": "tiny.gguf", "options": m.ModelOptions(max_num_seqs=1)}),
    ("profile", {"path": "tiny.gguf", "profile": "nobody"}),
    ("engine", {"path": "tiny.gguf", "engine": 3}),
    ("name", {"name": "download_dir", "path": "tiny.gguf"}),
)


async def test_what_may_not_be_registered(api: Api) -> None:
    for field, asked in WRONG:
        refusal = await refused(register(api, **asked))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, asked
        assert refusal.fields == (field,)
    absent = await refused(register(api, path="nothing.gguf"))
    assert absent.reason == "MODEL_FILE_INVALID"
    rehearsed = await register(api, path="tiny.gguf", validate_only=True)
    assert rehearsed.name == "models/new"
    assert (await refused(shown(api, "new"))).reason == "MODEL_NOT_FOUND"


async def test_a_model_of_a_hub_is_fetched_and_loaded(daemon: Gpud, origin: Origin) -> None:
    with serving_hub(Hub({"tiny-q8.gguf": origin.content})) as hub:
        daemon.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(daemon.directory)}
        daemon.start()
        async with calling(daemon) as api:
            made = await register(api, hub="org/tiny", file="tiny-q8.gguf")
            assert (made.source.hub, made.source.revision) == ("org/tiny", "main")
            await load(api, "new")
            (file,) = (await shown(api, "new")).files
            assert file.sha256 == origin.sha256
            await unload(api, model="new")
            asked = len(hub.asked)
            await load(api, "new")  # it stays as it is here, and nobody is asked
            assert len(hub.asked) == asked


@pytest.mark.engine
async def test_a_fetched_model_answers(
    modelled: MakeGpud, llama_server: Path, origin: Origin
) -> None:
    daemon = modelled(llama_server)
    daemon.extra = daemon.extra.replace("[models]\n", "[models]\nallow_http = true\n")
    daemon.start()
    async with calling(daemon) as api:
        options = m.ModelOptions(context_length=512, parallel=1)
        await register(api, url=origin.url, sha256=origin.sha256, options=options)
        ready = await load(api, "new")
        async with streaming(ready.endpoint, tokens=3) as pieces:
            assert [piece async for piece in pieces]


async def test_an_operator_deletes_its_own_alone(shared: Gpud, api: Api) -> None:
    way_in = f"unix:{shared.directory}/operator.sock"
    async with grpc.aio.insecure_channel(way_in) as channel:
        operator = Api(channel)
        await register(api, "annas", path="tiny.gguf", owner="anna")
        theirs = await refused(operator.models.DeleteModel(m.DeleteModelRequest(name="annas")))
        assert theirs.reason == "NOT_OWNER"
        own = await register(operator, "own", path="tiny.gguf", owner="anna")
        assert own.owner not in {"", "anna"}  # nobody but an admin acts for another
        await operator.models.DeleteModel(m.DeleteModelRequest(name="own"))
