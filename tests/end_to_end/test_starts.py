"""How an engine starts, with the real llama-server: checked, one at a time, kept from swap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import telemetry_pb2
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    instances,
    load,
    load_messages,
    unload,
)
from tests.running import Api, Gpud, arguments, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]
CARD_BYTES = 6080 * 2**20  # a simulated p106-100
LEFT_BYTES = 2**26
TELLS_STALLS = Path("/proc/pressure/memory").exists()
TAKEN = {"foreign": [{"pid": 4194303, "bytes": CARD_BYTES - LEFT_BYTES}]}


def status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)[name].strip()


def write_scenario(daemon: Gpud, **cards: dict[str, Any]) -> None:
    path = daemon.directory / "scenario.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(cards))
    fresh.rename(path)


@pytest.fixture
def seldom(modelled: MakeGpud, llama_server: Path) -> Gpud:
    """A daemon that samples by itself every 9 s: in between it knows nothing new."""
    return rarely(modelled(llama_server)).start()


def rarely(made: Gpud) -> Gpud:
    made.interval = "9s"
    made.devices = f'scenario = "{made.directory}/scenario.json"'
    return made


async def test_memory_that_went_away_after_the_promise_refuses_the_start(seldom: Gpud) -> None:
    async with calling(seldom) as api:
        before = await books(api)
        # As of its newest sample the card is empty, so the promise is made.
        write_scenario(seldom, gpu0=TAKEN)
        request = pb.LoadModelRequest(model="tiny", devices=["gpu0"])
        refused = await refused_stream(api.instances.LoadModel(request))
        assert refused.reason == "MEMORY_TAKEN"
        assert refused.metadata["device"] == "gpu0"
        assert int(refused.metadata["free_bytes"]) == LEFT_BYTES
        assert int(refused.metadata["unpromised_bytes"]) == CARD_BYTES - LEFT_BYTES
        assert int(refused.metadata["needed_bytes"]) > LEFT_BYTES
        (failed,) = await instances(api)
        assert failed.state == pb.INSTANCE_STATE_FAILED
        assert (failed.failure.reason, failed.failure.phase) == (
            "MEMORY_TAKEN",
            pb.LOAD_PHASE_START,
        )
        assert not failed.HasField("pid")
        assert await books(api) == before
        assert seldom.leftovers() == []
        types = await event_types(api, failed.name)
        assert "instance.started" not in types

        # Elsewhere there is room.
        assert (await load(api, device="gpu1")).state == pb.INSTANCE_STATE_READY


async def test_policy_may_leave_the_check_out(modelled: MakeGpud, llama_server: Path) -> None:
    daemon = rarely(modelled(llama_server))
    daemon.environment["GPUD_POLICY__OOM_PREVENTION"] = "false"
    daemon.start()
    async with calling(daemon) as api:
        write_scenario(daemon, gpu0=TAKEN)
        made = await load(api, device="gpu0")
        assert made.state == pb.INSTANCE_STATE_READY


async def test_an_instance_says_how_it_is_kept_from_swap(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        made = await load(api)
        locked_kib = int(status(made.pid, "VmLck").split()[0])
        if made.swap == "cgroup":
            assert made.containment == "cgroup"
        elif made.swap == "mlock":
            assert locked_kib > 0
            assert b"mlock" in arguments(made.pid)
        else:
            assert made.swap.startswith("not enforced: RLIMIT_MEMLOCK")
            assert locked_kib == 0
        assert status(made.pid, "VmSwap") == "0 kB"
        # What is locked is seen as its own, within its promise, and not as somebody else's.
        observed = await observed_bytes(api, made)
        assert locked_kib * 1024 <= observed <= made.footprint.total_bytes


async def observed_bytes(api: Api, made: pb.Instance) -> int:
    """By the first process list that knows it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            told = await api.instances.GetInstance(pb.GetInstanceRequest(name=made.name))
            if told.instance.measured_bytes != made.engine_bytes:
                return int(told.instance.measured_bytes)


async def test_an_engine_that_locks_nothing_is_not_said_to(stubbed: MakeGpud) -> None:
    async with calling(stubbed().start()) as api:
        made = await load(api)
        # The stub knows the flag and does nothing; some hosts do not even let it be asked.
        assert made.swap == "cgroup" or made.swap.startswith("not enforced: ")


async def test_swap_is_left_alone_where_policy_says_so(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server)
    daemon.environment["GPUD_POLICY__SWAP_DISABLED"] = "false"
    daemon.start()
    async with calling(daemon) as api:
        made = await load(api)
        assert made.swap == "not enforced: policy.swap_disabled is off"
        assert status(made.pid, "VmLck") == "0 kB"


async def test_two_loads_on_one_device_are_started_one_after_the_other(
    modelled: MakeGpud, llama_server: Path
) -> None:
    daemon = modelled(llama_server).start()
    async with calling(daemon) as api:
        both = await asyncio.gather(
            *(load_messages(api, device="gpu0", owner=owner) for owner in ("anna", "bert"))
        )
        first, second = sorted((told[-1].instance for told in both), key=ready_seconds)
        assert first.state == second.state == pb.INSTANCE_STATE_READY
        details = [message.detail for told in both for message in told]
        assert f"waits for {first.name} to finish loading on gpu0" in details
        assert started_wall(daemon, second) >= ready_seconds(first)


def ready_seconds(instance: pb.Instance) -> float:
    return instance.ready_time.seconds + instance.ready_time.nanos / 1e9


def started_wall(daemon: Gpud, instance: pb.Instance) -> float:
    """When its engine was executed: engine.json is written right after."""
    folder = daemon.state / "instances" / instance.name.removeprefix("instances/")
    return (folder / "engine.json").stat().st_mtime


async def test_a_load_that_waits_for_its_turn_can_be_stopped(
    stubbed: MakeGpud, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    daemon = stubbed("--hold", str(held)).start()
    async with calling(daemon) as api, asyncio.timeout(PATIENCE_SECONDS):
        first, loading = await until(api, "anna", lambda told: told.phase == pb.LOAD_PHASE_LOAD)
        waits = f"waits for {loading.instance.name} to finish loading on gpu0"
        second, waiting = await until(api, "bert", lambda told: told.detail == waits)
        assert waiting.phase == pb.LOAD_PHASE_START
        ends = await unload(api, instance=waiting.instance.name)
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert (await refused_stream(second)).reason == "LOAD_CANCELLED"

        # Who has the turn was not disturbed; once it fails, the next one has it.
        third, _ = await until(api, "carl", lambda told: told.detail == waits)
        await unload(api, instance=loading.instance.name, force=True)
        assert (await refused_stream(first)).reason == "LOAD_CANCELLED"
        held.touch()
        last = [message async for message in third][-1]
        assert last.instance.state == pb.INSTANCE_STATE_READY


async def until(
    api: Api, owner: str, holds: Callable[[pb.LoadModelResponse], bool]
) -> tuple[Any, pb.LoadModelResponse]:
    """Somebody's load of the model on gpu0, and the first message of which this holds."""
    request = pb.LoadModelRequest(model="tiny", devices=["gpu0"], owner=owner)
    stream = api.instances.LoadModel(request)
    async for message in stream:
        if holds(message):
            return stream, message
    raise AssertionError("the load ended before")


async def test_what_the_host_shows_of_its_memory_pressure_is_told(seldom: Gpud) -> None:
    async with calling(seldom) as api:
        answer = await api.telemetry.GetSnapshot(telemetry_pb2.GetSnapshotRequest())
        host = answer.snapshot.host
        assert host.memory_pressure_events >= 0
        assert host.HasField("memory_some_percent") == TELLS_STALLS
