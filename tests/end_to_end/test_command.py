"""A server that is not ours under gpud's promises: etcd, as the configuration tells it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2
from tests.bench.etcd import NoEtcd, find
from tests.end_to_end.driving import PATIENCE_SECONDS, books, instances, load, unload
from tests.running import Api, Gpud, arguments, calling, refused_stream

MakeGpud = Callable[..., Gpud]

MIB = 2**20
ENTRY = """
[models.etcd]
engine = "command"
argv = [
    "{program}", "--name", "one", "--data-dir", "${{DIRECTORY}}/data",
    "--listen-client-urls", "http://127.0.0.1:${{PORT}}",
    "--advertise-client-urls", "http://127.0.0.1:${{PORT}}",
    "--listen-peer-urls", "unix://peer:0", "--initial-advertise-peer-urls", "unix://peer:0",
    "--initial-cluster", "one=unix://peer:0",
    "--heartbeat-interval", "10", "--election-timeout", "50",
]
environment = {{ ETCD_LOG_LEVEL = "warn", GOMAXPROCS = "2" }}
health = "/health"
metrics = "/metrics"
device_bytes = "192MiB"
{more}

[models.etcd.counters]
running = "etcd_server_proposals_pending"
progress = "etcd_server_proposals_committed_total"
"""


@pytest.fixture(scope="module")
def etcd() -> Path:
    try:
        return find()
    except NoEtcd as error:
        pytest.skip(str(error))  # neither here nor to be had from the packages of this system


@pytest.fixture
def commanded(gpud: MakeGpud, etcd: Path) -> Callable[..., Gpud]:
    """Makes daemons that know the model `etcd`, served by etcd, whatever PATH says."""

    def make(program: Path = etcd, more: str = "", **settings: Any) -> Gpud:
        made = gpud(cards=0, **settings)
        made.extra += ENTRY.format(program=program.resolve(), more=more)
        # Whatever the umask of who runs the tests: others may not write what is executed.
        made.config.touch()
        made.config.chmod(0o644)
        return made

    return make


def ask(endpoint: str, path: str, **body: str) -> dict[str, Any]:
    """etcd's own API over JSON, keys and values in base64."""
    coded = {name: base64.b64encode(value.encode()).decode() for name, value in body.items()}
    request = urllib.request.Request(endpoint + path, json.dumps(coded).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


async def instance(api: Api, name: str) -> pb.Instance:
    return (await api.instances.GetInstance(pb.GetInstanceRequest(name=name))).instance


async def until(api: Api, name: str, holds: Callable[[pb.Instance], bool]) -> pb.Instance:
    """The instance once something holds of it; looked at anew with each sample of its device."""
    from gpud.v1 import telemetry_pb2

    async with asyncio.timeout(PATIENCE_SECONDS):
        request = telemetry_pb2.WatchSnapshotsRequest()
        async for _ in api.telemetry.WatchSnapshots(request):
            told = await instance(api, name)
            if holds(told):
                return told
    raise AssertionError(f"{name} never came so far")


async def test_it_lives_like_an_engine_that_gpud_knows(commanded: Callable[..., Gpud]) -> None:
    daemon = commanded(extra='[health]\nwatch = "50ms"\nbackoff_first = "10ms"\n').start()
    async with calling(daemon) as api:
        before = await books(api)
        made = await load(api, "etcd")
        assert made.state == pb.INSTANCE_STATE_READY
        assert made.footprint.total_bytes == 192 * MIB
        assert (await books(api))["host"][0] == before["host"][0] + 192 * MIB

        await asyncio.to_thread(ask, made.endpoint, "/v3/kv/put", key="a", value="b")
        told = await asyncio.to_thread(ask, made.endpoint, "/v3/kv/range", key="a")
        assert base64.b64decode(told["kvs"][0]["value"]) == b"b"

        used = await until(api, made.name, lambda told: told.measured_bytes > MIB)
        assert used.measured_bytes < 192 * MIB

        os.kill(made.pid, signal.SIGKILL)
        healed = await until(
            api,
            made.name,
            lambda told: told.state == pb.INSTANCE_STATE_READY and told.pid != made.pid,
        )
        assert healed.restarts == 1
        assert (await books(api))["host"][0] == before["host"][0] + 192 * MIB
        told = await asyncio.to_thread(ask, healed.endpoint, "/v3/kv/range", key="a")
        assert base64.b64decode(told["kvs"][0]["value"]) == b"b", "its folder is still its own"

        ends = await unload(api, instance=made.name)
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert ends[-1].freed_bytes == 192 * MIB
        assert await books(api) == before
        assert daemon.leftovers() == []


async def test_what_it_is_started_with_is_what_was_written(commanded: Callable[..., Gpud]) -> None:
    daemon = commanded(environment={"ETCD_DATA_DIR": "/canary", "GOMAXPROCS": "7"}).start()
    async with calling(daemon) as api:
        made = await load(api, "etcd")
        argv = arguments(made.pid).decode().split("\0")
        assert argv[1:3] == ["--name", "one"]
        assert f"http://127.0.0.1:{made.endpoint.rpartition(':')[2]}" in argv
        environ = environment(made.pid)
        told = dict(each.split("=", 1) for each in environ if each)
        assert told["GOMAXPROCS"] == "2"
        assert told["CUDA_VISIBLE_DEVICES"] == ""
        assert "canary" not in str(environ)
        listed = await api.models.GetModel(models_pb2.GetModelRequest(name="etcd"))
        assert not listed.model.problem
        assert listed.model.engine == 3  # ENGINE_COMMAND
        assert listed.model.footprint.total_bytes == 192 * MIB


async def test_it_survives_its_daemon(commanded: Callable[..., Gpud]) -> None:
    daemon = commanded().start()
    async with calling(daemon) as api:
        made = await load(api, "etcd")
        daemon.restart()
        (found,) = await instances(api)
        assert (found.pid, found.state) == (made.pid, pb.INSTANCE_STATE_READY)
        await unload(api, model="etcd")
        assert daemon.leftovers() == []


async def test_a_program_that_others_could_change_is_not_run(
    commanded: Callable[..., Gpud], tmp_path: Path
) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o757)
    daemon = commanded(program).start()
    async with calling(daemon) as api:
        before = await books(api)
        refusal = await refused_stream(
            api.instances.LoadModel(pb.LoadModelRequest(model="etcd", devices=["host"]))
        )
        assert refusal.reason == "ENGINE_MISSING"
        assert "may be written by anybody: chmod o-w it" in refusal.message
        # Mended, it is run, and its own end is told.
        program.chmod(0o755)
        refusal = await refused_stream(
            api.instances.LoadModel(pb.LoadModelRequest(model="etcd", devices=["host"]))
        )
        assert refusal.reason == "ENGINE_EXITED"
        assert await books(api) == before


async def test_no_option_of_an_engine_is_an_option_of_it(commanded: Callable[..., Gpud]) -> None:
    daemon = commanded().start()
    async with calling(daemon) as api:
        options = models_pb2.ModelOptions(parallel=2)
        refusal = await refused_stream(
            api.instances.LoadModel(pb.LoadModelRequest(model="etcd", options=options))
        )
        assert refusal.fields == ("parallel",)
        assert "an option of llama_cpp, not of command" in refusal.message


async def test_one_that_hangs_is_started_again(commanded: Callable[..., Gpud]) -> None:
    """Stopped in the middle of a request: neither its health nor its metrics answer any more."""
    daemon = commanded(
        extra="""
[health]
watch = "50ms"
health = "50ms"
stuck = "5s"
backoff_first = "10ms"
"""
    ).start()
    async with calling(daemon) as api:
        made = await load(api, "etcd")
        os.kill(made.pid, signal.SIGSTOP)
        healed = await until(
            api,
            made.name,
            lambda told: told.state == pb.INSTANCE_STATE_READY and told.pid != made.pid,
        )
        assert healed.restarts == 1
        put = await asyncio.to_thread(ask, healed.endpoint, "/v3/kv/put", key="a", value="b")
        assert put["header"]
        await unload(api, instance=made.name)
        assert daemon.leftovers() == []


SHOWN = """
[models]
roots = ["{root}"]
[models.shown]
engine = "command"
path = "weights.bin"
argv = [
    "/bin/sh", "-c", "cat ${{MODEL}}; echo on ${{DEVICES}} in ${{DIRECTORY}}; exit 3", "${{PORT}}",
]
health = "/"
device_bytes = "1GiB"
host_bytes = "64MiB"
[models.shown.environment]
WORD = "of nobody's business"
"""


async def test_it_has_its_file_its_cards_and_its_folder(gpud: MakeGpud, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("a file of any form\n")
    daemon = gpud(cards=0, devices='[[devices.simulated]]\ncard = "titan-x"\n')
    daemon.extra = SHOWN.format(root=tmp_path)
    daemon.config.touch(mode=0o644)
    async with calling(daemon.start()) as api:
        before = await books(api)
        rehearsed = pb.LoadModelRequest(model="shown", validate_only=True)
        (told,) = [each async for each in api.instances.LoadModel(rehearsed)]
        assert told.instance.footprint.total_bytes == 1024 * MIB
        entry = (await api.models.GetModel(models_pb2.GetModelRequest(name="shown"))).model
        assert entry.command.argv[:2] == ["/bin/sh", "-c"]
        assert (entry.command.health, entry.command.environment) == ("/", ["WORD"])
        assert (entry.command.device_bytes, entry.command.host_bytes) == (1024 * MIB, 64 * MIB)
        assert b"of nobody" not in entry.SerializeToString()
        (uuid,) = (each.removeprefix("devices/") for each in told.instance.devices)
        asked = pb.LoadModelRequest(model="shown")
        refusal = await refused_stream(api.instances.LoadModel(asked))
        assert refusal.reason == "ENGINE_EXITED"
        (ended,) = await instances(api)
        folder = daemon.state / "instances" / ended.name.removeprefix("instances/")
        said = ["a file of any form", f"on {uuid} in {folder}"]
        assert refusal.metadata["output_tail"].splitlines() == said
        assert (ended.last_exit.code, ended.devices) == (3, [f"devices/{uuid}"])
        assert await books(api) == before
