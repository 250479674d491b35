"""What a daemon starts with: records that make no sense, the first format, standing shares."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable

import pytest

from gpud.units import GIB
from gpud.v1 import node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS
from tests.running import Api, Gpud, calling, refused

MakeGpud = Callable[..., Gpud]


def write_rows(daemon: Gpud, rows: dict[str, bytes], version: int | None = None) -> None:
    with sqlite3.connect(daemon.state / "state.db") as connection:
        connection.executemany("INSERT INTO rows VALUES ('reservation', ?, ?)", list(rows.items()))
        if version is not None:
            connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


async def state_of(api: Api) -> node_pb2.Node:
    return (await api.node.GetNode(node_pb2.GetNodeRequest())).node


async def test_a_record_that_makes_no_sense_degrades_the_node_and_reads_go_on(
    gpud: MakeGpud,
) -> None:
    daemon = gpud().start()
    async with calling(daemon) as api:
        asked = pb.ReserveRequest(bytes=GIB, devices=["gpu0"])
        made = (await api.reservations.Reserve(asked)).reservation
        await asyncio.to_thread(daemon.stop)
        write_rows(daemon, {"r-bad": b'{"id": "r-bad"}'})
        await asyncio.to_thread(daemon.start)
        node = await state_of(api)
        assert node.state == node_pb2.NODE_STATE_DEGRADED
        assert "the row reservation 'r-bad' of state.db makes no sense" in node.state_reason
        assert "DELETE FROM rows" in node.state_reason
        listed = await api.reservations.ListReservations(pb.ListReservationsRequest())
        assert [each.name for each in listed.reservations] == [made.name]
        refusal = await refused(api.reservations.Reserve(asked))
        assert (refusal.reason, "r-bad" in refusal.message) == ("STORE_READ_ONLY", True)
        assert "free space" not in refusal.message
        await api.reservations.Release(pb.ReleaseRequest(name=made.name))

        await asyncio.to_thread(daemon.stop)
        with sqlite3.connect(daemon.state / "state.db") as connection:
            connection.execute("DELETE FROM rows WHERE kind = 'reservation' AND id = 'r-bad'")
        connection.close()
        await asyncio.to_thread(daemon.start)
        await api.reservations.Reserve(asked)


async def test_a_lease_of_the_first_format_goes_on(gpud: MakeGpud) -> None:
    daemon = gpud().start()
    async with calling(daemon) as api:
        uuid = (await api.reservations.Reserve(
            pb.ReserveRequest(bytes=GIB, devices=["gpu0"])
        )).reservation.grants[0].device.removeprefix("devices/")  # fmt: skip
        await asyncio.to_thread(daemon.stop)
        wall = time.time()
        old = {
            "id": "r-old", "owner": "anna", "kind": "leased", "state": "granted",
            "grants": [{"device": uuid, "bytes": GIB, "residue_before_bytes": None}],
            "generation": 1, "created_wall": wall, "ttl_seconds": 600.0,
            "deadline": {"boot_id": "", "boottime": 0.0, "wall": wall + 600},
            "labels": {}, "instance": None, "bound": False, "ending": None,
            "release_deadline": None, "ended": None, "reason": "",
        }  # fmt: skip
        write_rows(daemon, {"r-old": json.dumps(old).encode()}, version=1)
        await asyncio.to_thread(daemon.start)
        found = (await api.reservations.GetReservation(
            pb.GetReservationRequest(name="reservations/r-old")
        )).reservation  # fmt: skip
        assert (found.owner, found.state) == ("anna", pb.RESERVATION_STATE_GRANTED)
        assert found.grants[0].bytes == GIB
        await api.reservations.Renew(pb.RenewRequest(name=found.name))


@pytest.mark.parametrize("life", range(3))
async def test_whoever_hears_ready_finds_the_standing_reservations(
    gpud: MakeGpud, life: int
) -> None:
    daemon = gpud()
    daemon.extra += '[reservations.voice]\nowner = "home"\ndevices = ["gpu1"]\nbytes = "1GiB"\n'
    with daemon.started():
        async with calling(daemon) as api, asyncio.timeout(PATIENCE_SECONDS):
            await api.channel.channel_ready()
            while (await state_of(api)).state != node_pb2.NODE_STATE_READY:
                pass
            asked = pb.GetReservationRequest(name="reservations/voice")
            voice = (await api.reservations.GetReservation(asked)).reservation
            assert voice.state == pb.RESERVATION_STATE_GRANTED


async def test_a_standing_reservation_without_its_device_is_told(gpud: MakeGpud) -> None:
    daemon = gpud()
    daemon.extra += '[reservations.chat]\nowner = "home"\ndevices = ["gpu77"]\nbytes = "1GiB"\n'
    daemon.start()
    async with calling(daemon) as api, asyncio.timeout(PATIENCE_SECONDS):
        watched = api.node.WatchEvents(
            node_pb2.WatchEventsRequest(type="reservation", after_sequence=0)
        )
        event = (await anext(aiter(watched))).event
    assert event.type == "reservation.device_missing"
    assert event.subject == "reservations/chat"
    assert event.reason == "gpu77 is not on this host; it is held once it is there"
