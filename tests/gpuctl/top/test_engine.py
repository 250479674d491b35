"""A real llama-server as `gpuctl top` shows it, and its end by the screen's key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2, node_pb2
from tests.gpuctl.top.driving import on_screen
from tests.running import Gpud, calling

pytestmark = pytest.mark.engine


async def test_an_instance_from_ready_to_unloaded(
    gpud: Callable[..., Gpud], llama_server: Path, tiny_model: Path
) -> None:
    node = gpud(cards=0)
    shutil.copy(tiny_model, node.directory / "tiny.gguf")
    node.extra = (
        f'\n[engines.llama_cpp]\nbinary = "{llama_server}"\n'
        f'[models]\nroots = ["{node.directory}"]\n'
        '[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n'
    )
    node.extra += '[engine_metrics]\ninterval = "1s"\n'
    node.start()
    async with calling(node) as api, on_screen(node.address, size=(140, 40)) as screen:
        await screen.shows("nothing is loaded")
        request = instances_pb2.LoadModelRequest(model="models/tiny", devices=["host"])
        steps = [step async for step in api.instances.LoadModel(request)]
        name = steps[-1].instance.name.removeprefix("instances/")
        await screen.until(lambda: screen.cells("instances", name).get("STATE") == "READY")
        row = screen.cells("instances", name)
        assert (row["MODEL"], row["ON"]) == ("tiny", "host")
        await screen.until(lambda: screen.cells("instances", name)["TOK/S"] != "-")
        await screen.press("2", "enter")
        await screen.shows("phases", "verify", "endpoint http://127.0.0.1:", "of 1")
        # What it wrote itself.
        await screen.until(lambda: any(" slot " in line for line in screen.lines[20:]))
        await screen.press("u")
        await screen.shows(f"Unload instances/{name}?", "come back")
        await screen.press("y")
        await screen.shows("is there no more")
        await screen.press("escape")
        await screen.shows("nothing is loaded", "Instances 0")
        events = [
            each.type for each in (await api.node.ListEvents(node_pb2.ListEventsRequest())).events
        ]
    assert "instance.ended" in events
