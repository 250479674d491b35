"""A driver that does not come back from any call: everybody else goes on, and it is taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.devices import standin
from tests.proof.record import PROVING, asked, record
from tests.running import GIB, Api, Gpud, calling, refused

pytestmark = [pytest.mark.proof, pytest.mark.timeout(240)]

HUNG_SECONDS = asked(0, 60)
CALLS = asked(200, 3000)
PATIENCE_SECONDS = 90.0
# Of p99s: a neighbour on a small machine moves them by half of that.
MOST_SLOWER = 3.0
REFUSALS = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE}


def befall(trigger: Path, what: str) -> None:
    fresh = trigger.with_suffix(".new")
    fresh.write_text(what)
    fresh.rename(trigger)


async def p99(api: Api) -> float:
    """Seconds of a call, each after the other; all are answered."""
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await api.node.GetNode(node_pb2.GetNodeRequest())
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[int(len(seconds) * 0.99)]


async def health_of(api: Api, name: str) -> int:
    answer = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name=name))
    return int(answer.device.health)


async def until(holds: Callable[[int], bool], api: Api, name: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds(await health_of(api, name)):  # noqa: ASYNC110 — a daemon's own state
            await asyncio.sleep(0.05)


def reserving(name: str) -> pb.ReserveRequest:
    return pb.ReserveRequest(bytes=GIB // 4, devices=[name])


async def test_a_hung_driver_holds_up_nobody_and_comes_back(
    gpud: Callable[..., Gpud], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    began, trigger = time.monotonic(), tmp_path / "trigger"
    (tmp_path / "modes").write_text("0" * 8)
    daemon = gpud(
        cards=0,
        environment={
            "GPUD_DEVICES__NVML": "on",
            "LD_LIBRARY_PATH": str(standin.library_folder(tmp_path_factory)),
            "NVML_STANDIN": "healthy",
            "NVML_STANDIN_TRIGGER": str(trigger),
            "NVML_STANDIN_MODES": str(tmp_path / "modes"),
        },
    ).start()
    async with calling(daemon) as api:
        usual = await p99(api)
        befall(trigger, "freeze 0")
        healthy = devices_pb2.DEVICE_HEALTH_HEALTHY
        await until(lambda shown: shown != healthy, api, "gpu0")
        frozen_since = time.monotonic()
        slowest = await p99(api)
        while time.monotonic() - frozen_since < HUNG_SECONDS:
            slowest = max(slowest, await p99(api))
        # Nothing is granted blind; what does not hang is granted as ever.
        refusal = await refused(api.reservations.Reserve(reserving("gpu0")))
        assert refusal.code in REFUSALS, refusal
        other = (await api.reservations.Reserve(reserving("host"))).reservation
        assert other.state == pb.RESERVATION_STATE_GRANTED
        befall(trigger, "")
        await until(lambda shown: shown == healthy, api, "gpu0")
        granted = (await api.reservations.Reserve(reserving("gpu0"))).reservation
        assert granted.state == pb.RESERVATION_STATE_GRANTED
    print(f"p99 of a call: {usual * 1e3:.2f} ms before, {slowest * 1e3:.2f} ms while it hung")
    slower = int(PROVING and slowest > MOST_SLOWER * usual)
    record("R4 hung driver: seconds", HUNG_SECONDS, HUNG_SECONDS, slower, time.monotonic() - began)
    assert not slower, (usual, slowest)
