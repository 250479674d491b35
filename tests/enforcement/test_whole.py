"""A whole daemon: who is on a device, what is done about it, and what the driver is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.devices.processes import read_stat
from gpud.v1 import devices_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.devices import standin
from tests.devices.proc_tree import hog
from tests.running import GIB, Api, Gpud, calling, refused

MIB = 1024**2
PATIENCE_SECONDS = 60.0
CARD, OTHER = "SIM-p106-100-0", "SIM-p106-100-1"


@pytest.fixture
def gpud(tmp_path: Path) -> Iterator[Gpud]:
    made = Gpud(directory=tmp_path, cards=2)
    yield made
    made.end()


async def events(api: Api, type_: str, count: int) -> list[node_pb2.Event]:
    """The first so many of a type from the beginning of the journal on."""
    found: list[node_pb2.Event] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        asked = node_pb2.WatchEventsRequest(type=type_, after_sequence=0)
        async for told in api.node.WatchEvents(asked):
            found.append(told.event)
            if len(found) == count:
                break
    return found


async def event(api: Api, type_: str) -> node_pb2.Event:
    return (await events(api, type_, 1))[0]


async def relations(
    api: Api, device: str, until: Callable[[dict[int, str]], bool]
) -> dict[int, str]:
    """What each process on a device is, once that holds."""
    names = devices_pb2.ProcessRelation
    async with asyncio.timeout(PATIENCE_SECONDS):
        asked = devices_pb2.GetDeviceRequest(name=device)
        async for _ in api.telemetry.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest()):
            processes = (await api.devices.GetDevice(asked)).device.sample.processes
            found = {
                each.pid: names.Name(each.relation).removeprefix("PROCESS_RELATION_")
                for each in processes
            }
            if until(found):
                return found
    raise AssertionError


async def reserve(api: Api, size: int = GIB, **asked: object) -> pb.Reservation:
    request = pb.ReserveRequest(bytes=size, **asked)  # type: ignore[arg-type]
    return (await api.reservations.Reserve(request)).reservation


async def test_each_process_is_known_and_who_should_not_be_there_is_told(gpud: Gpud) -> None:
    gpud.start()
    with (
        hog(32 * MIB, CUDA_VISIBLE_DEVICES=CARD) as stranger,
        hog(32 * MIB, CUDA_VISIBLE_DEVICES=CARD) as guest,
    ):
        async with calling(gpud) as api:
            before = await relations(api, "gpu0", lambda found: {stranger, guest} <= found.keys())
            assert (before[stranger], before[guest]) == ("FOREIGN", "FOREIGN")
            mine = await reserve(api, size=100 * MIB, devices=["gpu0"])
            attached = await api.reservations.AttachProcess(
                pb.AttachProcessRequest(name=mine.name, pid=guest)
            )
            assert [each.pid for each in attached.reservation.attachments] == [guest]
            with hog(256 * MIB, **mine.environment) as owner:
                found = await relations(
                    api,
                    "gpu0",
                    lambda found: found.get(owner) == "OWNER" and found[guest] == "ATTACHED",
                )
                assert found[stranger] == "FOREIGN"
                over = await event(api, "reservation.overuse")
                assert over.subject == mine.name
                # Seen as soon as it is more than the slack, maybe while it still grows.
                assert int(over.details["observed_bytes"]) > (100 + 64) * MIB
                assert int(over.details["granted_bytes"]) == 100 * MIB
            ended = await event(api, "reservation.overuse.ended")
            assert ended.subject == mine.name
            # The promise of one card, used on another.
            with hog(MIB, CUDA_VISIBLE_DEVICES=OTHER, GPUD_RESERVATION=mine.name) as lost:
                found = await relations(api, "gpu1", lambda found: lost in found)
                assert found[lost] == "TRESPASSER"
                told = await event(api, "device.trespass")
                assert (told.details["pid"], told.details["reservation"]) == (str(lost), mine.name)


async def test_policy_ends_who_is_proved_and_nobody_else(gpud: Gpud) -> None:
    gpud.environment = {
        "GPUD_POLICY__ON_TRESPASS": "terminate",
        "GPUD_POLICY__ON_OVERUSE": "terminate",
    }
    gpud.start()
    async with calling(gpud) as api:
        alone = await reserve(api, devices=["gpu0"], sharing=pb.SHARING_EXCLUSIVE)
        small = await reserve(api, size=100 * MIB, devices=["gpu1"])
        with (
            hog(8 * MIB, **alone.environment) as owner,
            hog(8 * MIB, CUDA_VISIBLE_DEVICES=OTHER) as foreign,
            doomed(8 * MIB, CUDA_VISIBLE_DEVICES=CARD) as intruder,
            doomed(256 * MIB, **small.environment) as glutton,
        ):
            for pid in (intruder, glutton):
                found = await asyncio.wait_for(asyncio.to_thread(ending, pid), PATIENCE_SECONDS)
                assert found == signal.SIGTERM
            told = await events(api, "process.terminated", 2)
            assert {each.details["pid"] for each in told} == {str(intruder), str(glutton)}
            assert all("opened at" in each.details["proof"] for each in told)
            assert not any(read_stat(pid).state in "ZX" for pid in (owner, foreign))


@contextmanager
def doomed(size_bytes: int, **environment: str) -> Iterator[int]:
    """As hog, but ended maybe before it holds all of that."""
    script = f"held = bytearray(b'x') * {size_bytes}; input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, env=environment
    ) as process:
        yield process.pid
        process.kill()


def ending(pid: int) -> int:
    """The signal that ends a child of ours, once it does."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status


# With the driver: the stand-in library, whose modes outlive every process.


@pytest.fixture
def modes(gpud: Gpud, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, trigger = tmp_path / "modes", tmp_path / "trigger"
    path.write_text("00000000")
    gpud.cards = 0
    gpud.environment = {
        "LD_LIBRARY_PATH": str(standin.library_folder(tmp_path_factory)),
        "NVML_STANDIN": "healthy",
        "NVML_STANDIN_MODES": str(path),
        "NVML_STANDIN_TRIGGER": str(trigger),
        "GPUD_DEVICES__NVML": "on",
    }
    return path


async def until_modes(api: Api, modes: Path, wanted: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _ in api.telemetry.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest()):
            if read(modes) == wanted:
                return


def read(path: Path) -> str:
    return path.read_text()


async def test_the_driver_enforces_and_is_put_back_after_a_crash(gpud: Gpud, modes: Path) -> None:
    gpud.start()
    async with calling(gpud) as api:
        held = await reserve(
            api,
            devices=["gpu3", "gpu4"],
            device_count=2,
            sharing=pb.SHARING_EXCLUSIVE,
            require_enforcement=pb.ENFORCEMENT_DRIVER,
        )
        assert {each.enforcement for each in held.grants} == {pb.ENFORCEMENT_DRIVER}
        assert read(modes) == "00033000"
    # A crash between the setting and the restoring: the next life knows.
    gpud.restart()
    async with calling(gpud) as api:
        device = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu3"))
        assert device.device.compute_mode == devices_pb2.COMPUTE_MODE_EXCLUSIVE_PROCESS
        assert device.device.exclusive_reservation == held.name
        await api.reservations.Release(pb.ReleaseRequest(name=held.name))
        await until_modes(api, modes, "00000000")


async def test_without_the_right_to_it_is_refused_or_the_ledgers_alone(
    gpud: Gpud, modes: Path, tmp_path: Path
) -> None:
    (tmp_path / "trigger").write_text("deny 3")
    gpud.start()
    async with calling(gpud) as api:
        shape = {"devices": ["gpu3"], "sharing": pb.SHARING_EXCLUSIVE}
        refusal = await refused(reserve(api, require_enforcement=pb.ENFORCEMENT_DRIVER, **shape))
        assert refusal.reason == "ENFORCEMENT_UNAVAILABLE"
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        held = await reserve(api, **shape)
        assert [each.enforcement for each in held.grants] == [pb.ENFORCEMENT_LEDGER]
        told = await event(api, "device.compute_mode_refused")
        assert "not permitted" in told.reason
        assert "run gpud as root" in told.reason
    assert read(modes) == "00000000"


async def test_a_refused_enforcement_is_not_remembered(
    gpud: Gpud, modes: Path, tmp_path: Path
) -> None:
    """Reported: the same request_id was answered with a reservation that had ended."""
    (tmp_path / "trigger").write_text("deny 3")
    gpud.start()
    asked = {
        "request_id": "mine",
        "devices": ["gpu3"],
        "sharing": pb.SHARING_EXCLUSIVE,
        "require_enforcement": pb.ENFORCEMENT_DRIVER,
    }
    async with calling(gpud) as api:
        first = await refused(reserve(api, **asked))
        second = await refused(reserve(api, **asked))
        assert (first.reason, second.message) == ("ENFORCEMENT_UNAVAILABLE", first.message)
    # Nor by the next life, in which the right was given.
    (tmp_path / "trigger").unlink()
    gpud.restart()
    async with calling(gpud) as api:
        held = await reserve(api, **asked)
        assert held.state == pb.RESERVATION_STATE_GRANTED
        assert [each.enforcement for each in held.grants] == [pb.ENFORCEMENT_DRIVER]
        assert (await reserve(api, **asked)).name == held.name
        listed = await api.reservations.ListReservations(
            pb.ListReservationsRequest(states=[pb.RESERVATION_STATE_REVOKED])
        )
    assert [each.state_reason for each in listed.reservations] == [first.message] * 2
    assert read(modes) == "00030000"


async def test_who_waited_and_is_not_enforced_is_told_why(
    gpud: Gpud, modes: Path, tmp_path: Path
) -> None:
    """Reported: it was told GRANTED, and soon after RELEASED without a word."""
    (tmp_path / "trigger").write_text("deny 3")
    gpud.start()
    async with calling(gpud) as api:
        shape = {"devices": ["gpu3"], "sharing": pb.SHARING_EXCLUSIVE}
        holder = await reserve(api, **shape)
        waiting = await reserve(
            api,
            max_wait=Duration(seconds=60),
            require_enforcement=pb.ENFORCEMENT_DRIVER,
            **shape,
        )
        assert waiting.state == pb.RESERVATION_STATE_QUEUED
        await api.reservations.Release(pb.ReleaseRequest(name=holder.name))
        watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=waiting.name))
        async with asyncio.timeout(PATIENCE_SECONDS):
            states = [told.reservation async for told in watch]
        told = await event(api, "reservation.unenforced")
    assert states[-1].state == pb.RESERVATION_STATE_REVOKED
    words = states[-1].state_reason
    assert words.startswith("cannot keep others off devices/")
    assert "leave out require_enforcement" in words
    assert (told.subject, told.reason) == (
        waiting.name,
        "revoked, for it required enforcement by the driver",
    )
    assert read(modes) == "00000000"
