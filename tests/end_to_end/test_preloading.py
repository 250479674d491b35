"""Models that are loaded at the start, and what a configuration read anew changes of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import grpc

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2, node_pb2, reservations_pb2
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    event_types,
    instances,
    load,
    reaches,
    unload,
)
from tests.running import Api, Gpud, calling, refused

MakeGpud = Callable[..., Gpud]
READY = pb.INSTANCE_STATE_READY
PRELOADED = (
    '[models.second]\npath = "tiny.gguf"\npreload = true\npreload_devices = ["gpu1"]\n'
    '[models.first]\npath = "tiny.gguf"\npreload = true\npinned = true\n'
    '[models.missing]\npath = "none.gguf"\npreload = true\n'
    '[models.last]\npath = "tiny.gguf"\npreload = true\npreload_devices = ["host"]\n'
)


async def preloaded(api: Api, *models: str) -> dict[str, pb.Instance]:
    """Those of gpud itself, by model, once all of these are READY."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = {each.model: each for each in await instances(api) if each.owner == "gpud"}
            if {f"models/{model}" for model in models} <= found.keys():
                break
            await asyncio.sleep(0.01)
    for model in models:
        name = f"models/{model}"
        found[name] = await reaches(api, found[name].name, READY)
    return found


async def test_the_list_is_loaded_in_its_order_and_once(stubbed: MakeGpud) -> None:
    gpud = stubbed(models=PRELOADED).start()
    async with calling(gpud) as api:
        made = await preloaded(api, "second", "first", "last")
        in_order = sorted(made.values(), key=lambda each: each.create_time.ToNanoseconds())
        told = [each.model.removeprefix("models/") for each in in_order]
        assert [each for each in told if each != "missing"] == ["second", "first", "last"]
        assert made["models/first"].pinned
        assert not made["models/second"].pinned
        listed = await event_types(api, "models/missing")
        assert listed == ["preload.failed"]
    gpud.restart()
    async with calling(gpud) as api:
        again = {each.model: each for each in await instances(api) if each.state == READY}
        for model in ("models/second", "models/first", "models/last"):
            assert again[model].name == made[model].name, "it is there: adopted, not loaded again"
            assert again[model].pid == made[model].pid


async def test_what_does_not_fit_yet_waits_in_the_queue(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    models = (
        '[models.big]\npath = "tiny.gguf"\npreload = true\npreload_devices = ["gpu0"]\n'
        '[models.after]\npath = "tiny.gguf"\npreload = true\npreload_devices = ["gpu1"]\n'
    )
    async with calling(gpud) as api:
        asked = reservations_pb2.ReserveRequest(owner="x", bytes=5300 * 2**20, devices=["gpu0"])
        held = (await api.reservations.Reserve(asked)).reservation
        await changed(gpud, api, "[models.tiny]", f"{models}[models.tiny]")
        await preloaded(api, "after")
        (waiting,) = [each for each in await instances(api) if each.model == "models/big"]
        assert waiting.state == pb.INSTANCE_STATE_RESERVING
        assert waiting.queue_position == 1
        await api.reservations.Release(reservations_pb2.ReleaseRequest(name=held.name))
        await reaches(api, waiting.name, READY)


async def changed(gpud: Gpud, api: Api, old: str, new: str) -> list[tuple[str, str, bool]]:
    """What a reload tells after a change of the file."""
    text = gpud.config.read_text()
    assert old in text
    gpud.config.write_text(text.replace(old, new))
    answer = await api.node.ReloadConfig(node_pb2.ReloadConfigRequest(owner="me"))
    kinds = node_pb2.ConfigChangeKind.Name
    return [
        (each.key, kinds(each.kind).removeprefix("CONFIG_CHANGE_KIND_"), each.needs_restart)
        for each in answer.changes
    ]


async def test_a_changed_entry_counts_at_its_next_load(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        before = await load(api)
        assert await changed(gpud, api, "context_length = 512", "context_length = 1024") == [
            ("models.tiny", "CHANGED", False)
        ]
        stays = await api.instances.GetInstance(pb.GetInstanceRequest(name=before.name))
        assert stays.instance.options.context_length == 512
        assert stays.instance.pid == before.pid
        await unload(api, instance=before.name)
        assert (await load(api)).options.context_length == 1024


async def test_entries_come_and_go_and_a_new_one_of_the_list_is_loaded(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        old = await load(api)
        new = '[models.next]\npath = "tiny.gguf"\npreload = true\npreload_devices = ["host"]\n'
        told = await changed(gpud, api, "[models.tiny]", f"{new}[models.other]")
        assert told == [
            ("models.next", "ADDED", False),
            ("models.other", "ADDED", False),
            ("models.tiny", "REMOVED", False),
        ]
        await preloaded(api, "next")
        listed = await api.models.ListModels(models_pb2.ListModelsRequest())
        assert [each.name for each in listed.models] == ["models/next", "models/other"]
        assert (await refused(load(api))).code is grpc.StatusCode.NOT_FOUND
        # What runs runs on, and is unloaded as ever.
        assert (await unload(api, instance=old.name))[-1].freed_bytes > 0


async def test_one_that_is_no_good_is_refused_whole(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        for old, new, why in (
            ("context_length = 512", "context_length = 0", "context_length"),
            ("[models.tiny]", "[quotas.x]\nstream = 1\n[models.tiny]", "did you mean `streams`"),
            ("[models.tiny]", "[models.tiny", "TOML"),
            ("[models.tiny]", '[models.tiny]\nprofile = "none"', "no profile"),
        ):
            text = gpud.config.read_text()
            gpud.config.write_text(text.replace(old, new))
            told = await refused(api.node.ReloadConfig(node_pb2.ReloadConfigRequest()))
            assert (told.code, told.reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "CONFIG_INVALID",
            )
            assert why in told.message
            assert "the configuration in force stays so" in told.message
            gpud.config.write_text(text)
        refusals = api.node.WatchEvents(
            node_pb2.WatchEventsRequest(type="config.refused", after_sequence=0)
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(4):
                await refusals.read()
        refusals.cancel()
        assert (await load(api)).options.context_length == 512


async def test_what_needs_a_restart_is_told_and_left(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        for _ in range(2):
            told = await changed(gpud, api, 'interval = "50ms"', 'interval = "60ms"')
            assert told == [("sampling.interval", "CHANGED", True)]
            gpud.config.write_text(
                gpud.config.read_text().replace('interval = "60ms"', 'interval = "50ms"')
            )
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        assert node.sampling_interval.ToMilliseconds() == 50


async def test_policy_quotas_and_shares_count_at_once(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    more = (
        '[quotas.anna]\nreservations = 1\n[reservations.voice]\nowner = "voice"\n'
        'devices = ["gpu1"]\nbytes = "2GiB"\n[policy]\ndevice_reserve = "1GiB"\n'
    )
    async with calling(gpud) as api:
        told = await changed(gpud, api, "[policy]\n", more)
        assert ("policy.device_reserve", "CHANGED", False) in told
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        assert node.policy.device_reserve_bytes == 2**30
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = reservations_pb2.WatchReservationRequest(name="voice")
            while True:
                try:
                    async for seen in api.reservations.WatchReservation(request):
                        if seen.reservation.state == reservations_pb2.RESERVATION_STATE_GRANTED:
                            break
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)
        asked = reservations_pb2.ReserveRequest(owner="anna", bytes=2**20)
        await api.reservations.Reserve(asked)
        refusal = await refused(api.reservations.Reserve(asked))
        assert refusal.reason == "QUOTA_EXCEEDED"


async def test_only_validated_nothing_changes(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        gpud.config.write_text(gpud.config.read_text().replace("= 512", "= 1024"))
        request = node_pb2.ReloadConfigRequest(validate_only=True)
        for _ in range(2):
            assert len((await api.node.ReloadConfig(request)).changes) == 1
        assert (await load(api)).options.context_length == 512
        assert "config.reloaded" not in await event_types(api, "node")


async def test_sighup_does_it_too(stubbed: MakeGpud) -> None:
    gpud = stubbed().start()
    async with calling(gpud) as api:
        gpud.config.write_text(gpud.config.read_text().replace("= 512", "= 1024"))
        assert gpud.process is not None
        os.kill(gpud.process.pid, signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = node_pb2.WatchEventsRequest(type="config.reloaded", after_sequence=0)
            async for told in api.node.WatchEvents(request):
                assert told.event.actor == "SIGHUP"
                assert told.event.reason == "models.tiny changed"
                break
        assert (await load(api)).options.context_length == 1024
