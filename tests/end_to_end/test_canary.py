"""Secrets that gpud holds, looked for in everything that it shows, writes or hands on."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpud.access.tokens import digest
from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    reservations_pb2,
    telemetry_pb2,
)
from tests.end_to_end.driving import PATIENCE_SECONDS, reaches
from tests.running import Api, Gpud, arguments, calling, pids

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

KEY = "Canary-of-the-key-0123456789-~Zq~"
TOKEN = "gpud_" + "CanaryOfTheToken" + "t" * 27
ENVIRONMENT = "CanaryOfTheEnvironment"
CANARIES = (b"Canary", b"canary", KEY[-4:].encode(), digest(TOKEN).encode())
# In every kind of output; a search that does not find it would find no canary either.
CONTROL = b"voice"
GPUCTL = [sys.executable, "-c", "from gpuctl.main import main; main()"]


@pytest.fixture
def daemon(modelled: MakeGpud, llama_server: Path, tmp_path: Path) -> Gpud:
    key_file = tmp_path / "voice.key"
    key_file.write_text(f"{KEY}\n")
    key_file.chmod(0o600)
    models = (
        f'[models.voice]\npath = "tiny.gguf"\napi_key_file = "{key_file}"\n'
        f'[models.voice-bad]\npath = "absent.gguf"\napi_key_file = "{key_file}"\n'
        f'[tokens.ci]\nsha256 = "{digest(TOKEN)}"\nrole = "admin"\n'
    )
    environment = {"GPUD_CANARY": ENVIRONMENT, "LLAMA_API_KEY": ENVIRONMENT}
    made: Gpud = modelled(llama_server, models=models, environment=environment)
    return made.start()


class Heard:
    """A daemon's answers, refusals among them, to somebody who shows a token."""

    def __init__(self, token: str) -> None:
        self.said: list[str] = []
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def call(self, method: Any, request: Any) -> Any:
        """One answer; None for a refusal."""
        try:
            answer = await method(request, metadata=self._metadata, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            return None
        self.said.append(repr(answer))
        return answer

    async def stream(self, method: Any, request: Any) -> list[Any]:
        """All of its messages, until it ends or is refused."""
        found = []
        try:
            async for message in method(
                request, metadata=self._metadata, timeout=PATIENCE_SECONDS
            ):
                found.append(message)
                self.said.append(repr(message))
        except grpc.aio.AioRpcError as error:
            self._refused(error)
        return found

    def _refused(self, error: grpc.aio.AioRpcError) -> None:
        self.said += [str(error.details()), repr(error.trailing_metadata())]


async def reads(api: Api, heard: Heard, instance: str) -> None:
    """Everything that can be asked about what there is."""
    await heard.call(api.node.GetNode, node_pb2.GetNodeRequest())
    await heard.call(api.node.ListEvents, node_pb2.ListEventsRequest(page_size=1000))
    await heard.call(api.devices.ListDevices, devices_pb2.ListDevicesRequest())
    await heard.call(
        api.telemetry.GetSnapshot, telemetry_pb2.GetSnapshotRequest(include_processes=True)
    )
    await heard.call(api.reservations.ListReservations, reservations_pb2.ListReservationsRequest())
    await heard.call(api.models.ListModels, models_pb2.ListModelsRequest())
    for model in ("voice", "voice-bad"):
        await heard.call(api.models.GetModel, models_pb2.GetModelRequest(name=f"models/{model}"))
        await heard.call(
            api.models.EstimateFootprint, models_pb2.EstimateFootprintRequest(model=model)
        )
    await heard.call(api.instances.ListInstances, instances_pb2.ListInstancesRequest())
    await heard.call(api.instances.GetInstance, instances_pb2.GetInstanceRequest(name=instance))
    await heard.stream(
        api.instances.TailOutput, instances_pb2.TailOutputRequest(instance=instance, lines=2000)
    )


def loading(model: str) -> instances_pb2.LoadModelRequest:
    return instances_pb2.LoadModelRequest(model=model, devices=["host"])


def files(daemon: Gpud) -> Iterator[tuple[str, bytes]]:
    """All that it has written: its state, its log, its engines' output. Not what it was given."""
    for path in daemon.directory.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode) and path != daemon.config:
            yield str(path), path.read_bytes()


def processes(instance: str) -> Iterator[tuple[str, bytes]]:
    """Argv of everybody, and the environment of the instance's own tree."""
    needle = instance.removeprefix("instances/").encode()
    for pid in pids():
        argv = arguments(pid)
        if needle in argv:
            yield f"argv of {pid}", argv
            yield f"environment of {pid}", Path(f"/proc/{pid}/environ").read_bytes()


def gpuctl(daemon: Gpud, *words: str) -> bytes:
    """What it prints, both ways, whether or not it succeeds."""
    ended = subprocess.run(
        [*GPUCTL, "--address", f"unix://{daemon.socket}", *words],
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    return ended.stdout + ended.stderr


async def commands(daemon: Gpud, instance: str) -> AsyncIterator[tuple[str, bytes]]:
    for words in (
        ("status",), ("devices",), ("instances",), ("models",), ("reservations",), ("ps",),
        ("show", instance), ("show", "models/voice"), ("events",), ("estimate", "voice"),
        ("load", "voice-bad"), ("logs", instance),
    ):  # fmt: skip
        shown = words if words[0] == "logs" else (*words, "-o", "json")
        yield f"gpuctl {' '.join(words)}", await asyncio.to_thread(gpuctl, daemon, *shown)


def found_in(outputs: list[tuple[str, bytes]]) -> list[str]:
    """Where a canary sings."""
    assert any(CONTROL in content for _, content in outputs)
    return [
        f"{where}: {canary.decode()}"
        for where, content in outputs
        for canary in CANARIES
        if canary in content
    ]


async def test_no_secret_is_found_in_any_output(daemon: Gpud) -> None:
    heard, stranger = Heard(TOKEN), Heard(f"{TOKEN}x")
    async with calling(daemon) as api:
        made = (await heard.stream(api.instances.LoadModel, loading("voice")))[-1].instance
        await reaches(api, made.name, instances_pb2.INSTANCE_STATE_READY)
        await heard.stream(api.instances.LoadModel, loading("voice-bad"))
        await stranger.stream(api.instances.LoadModel, loading("voice"))
        await stranger.call(api.node.GetNode, node_pb2.GetNodeRequest())
        await reads(api, heard, made.name)
        assert found_in([*processes(made.name)]) == []
        printed = [each async for each in commands(daemon, made.name)]
        unload = instances_pb2.UnloadModelRequest(instance=made.name)
        await heard.stream(api.instances.UnloadModel, unload)
        await reads(api, heard, made.name)
    assert found_in(printed) == []
    assert found_in([("answers", said.encode()) for said in heard.said + stranger.said]) == []
    assert await asyncio.to_thread(daemon.stop) == 0
    assert found_in([*files(daemon)]) == []
