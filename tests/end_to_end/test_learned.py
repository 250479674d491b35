"""One load of a model teaches what the next one takes: with the real llama-server, on the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.v1 import models_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, load, unload
from tests.running import Api, Gpud, calling

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]


async def estimate(api: Api, **options: int) -> pb.Footprint:
    asked = pb.EstimateFootprintRequest(
        model="tiny", device="host", options=pb.ModelOptions(**options)
    )
    return (await api.models.EstimateFootprint(asked)).footprint


def part(footprint: pb.Footprint, what: int) -> int:
    return sum(item.bytes for item in footprint.items if item.what == what)


def buffers(footprint: pb.Footprint) -> int:
    """What is expected of the engine's own allocations."""
    aside = footprint.margin_bytes + part(footprint, pb.FOOTPRINT_WHAT_CONTEXT)
    return int(footprint.total_bytes) - aside


async def measured_context(api: Api, law_bytes: int) -> pb.Footprint:
    """Once the first process list of an instance has taught what its process takes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while part(told := await estimate(api), pb.FOOTPRINT_WHAT_CONTEXT) == law_bytes:
            pass
        return told


async def test_on_the_host_a_small_process_is_promised_no_more_than_it_was_seen_to_need(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        law = await estimate(api)
        made = await load(api)
        told = await measured_context(api, part(law, pb.FOOTPRINT_WHAT_CONTEXT))
        context = part(told, pb.FOOTPRINT_WHAT_CONTEXT)
        assert context < part(law, pb.FOOTPRINT_WHAT_CONTEXT)
        (item,) = (each for each in told.items if each.what == pb.FOOTPRINT_WHAT_CONTEXT)
        assert "9 MiB a process, as measured here" in item.source
        # The catalogue knows now what its file is.
        (model,) = (await api.models.ListModels(pb.ListModelsRequest())).models
        assert model.kind == pb.MODEL_KIND_CHAT
        await unload(api, instance=made.name)
        # Another load of the same process: by other options, so by the law but for that.
        other = await estimate(api, context_length=1024)
        assert part(other, pb.FOOTPRINT_WHAT_CONTEXT) == context


async def test_after_one_measured_load_the_estimate_is_within_three_percent(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        law = await estimate(api)
        assert law.confidence == pb.CONFIDENCE_LAW
        assert not law.HasField("past_error")
        first = await load(api)
        await unload(api, instance=first.name)
        told = await estimate(api)
        assert told.confidence == pb.CONFIDENCE_MEASURED
        assert told.past_error == pytest.approx(first.engine_bytes / buffers(law) - 1)
        assert told.margin_bytes < law.margin_bytes
        assert told.past_error_of.endswith("of the engine's own buffers")
        # Other options are another load.
        assert (await estimate(api, context_length=1024)).confidence == pb.CONFIDENCE_LAW
    daemon.kill()
    async with calling(daemon.start()) as api:
        assert await estimate(api) == told  # it is durable
        second = await load(api)
        assert second.footprint.confidence == pb.CONFIDENCE_MEASURED
        assert second.engine_bytes == pytest.approx(buffers(told), rel=0.03)
        assert 0 < second.engine_bytes <= second.footprint.total_bytes
        await unload(api, instance=second.name)
