"""Records that make no sense, and those of earlier formats: what is restored of them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpud.enforcement.compute_mode import ROW_KIND, Former
from gpud.errors import StoreReadOnly
from gpud.ledger.books import Cordon
from gpud.ledger.change import Change
from gpud.ledger.reservation import (
    Deadline,
    Grant,
    ReservationKind,
    ReservationState,
    ReserveRequest,
)
from gpud.migration import from_version_1
from gpud.promises.promises import StoreUnreadable
from gpud.promises.requests import Call
from gpud.store import SCHEMA_VERSION, Row, SqliteStore, Write
from tests.enforcement.office import GIB, GPU, Office
from tests.fakes.clock import FakeClock

BAD = b'{"id":"r-1","owner":"me","kind":"leased"}'


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


async def put(office: Office, kind: str, id_: str, body: bytes | None) -> None:
    await office.store.append(Write(rows=(Row(kind=kind, id=id_, body=body),)))


@pytest.mark.parametrize("body", [BAD, b"{", b"\xff\xfe", b"[]", b""])
@pytest.mark.parametrize("kind", ["reservation", "leak", "cordon", "request"])
async def test_a_record_that_makes_no_sense_stops_grants_alone(
    office: Office, kind: str, body: bytes
) -> None:
    await office.reserve("good")
    await put(office, kind, "r-1", body)
    office.promises.restore()
    said = office.promises.unreadable
    assert f"the row {kind} 'r-1' of state.db makes no sense" in said
    assert f"DELETE FROM rows WHERE kind = '{kind}' AND id = 'r-1'" in said
    with pytest.raises(StoreUnreadable, match="cannot promise: the store cannot be read: the row"):
        await office.reserve("new")
    # What can be read is listed, renewed and released.
    assert set(office.promises.durable.reservations) == {"good"}
    await office.promises.renew("good", None, 60.0, Call(method="Renew"))
    await office.release("good")
    await put(office, kind, "r-1", None)
    office.promises.restore()
    assert office.promises.unreadable == ""
    await office.reserve("new")


async def test_several_are_counted_and_the_other_kinds_told_as_well(office: Office) -> None:
    await put(office, "reservation", "r-1", BAD)
    await put(office, "reservation", "r-2", BAD)
    await put(office, ROW_KIND, GPU, b"?")
    office.promises.restore()
    assert "'r-1' of state.db and 1 more of them" in office.promises.unreadable
    assert office.promises.read(ROW_KIND, Former) == {}
    await put(office, "reservation", "r-1", None)
    await put(office, "reservation", "r-2", None)
    office.promises.restore()
    # What others read stays told until they have read it again.
    assert f"the row {ROW_KIND} {GPU!r}" in office.promises.unreadable


class Torn(SqliteStore):
    """A store whose disk gives errors while it is torn."""

    is_torn = False

    def read_rows(self, kind: str) -> list[tuple[str, bytes]]:
        if self.is_torn:
            raise sqlite3.OperationalError("disk I/O error")
        return super().read_rows(kind)


async def test_nothing_is_promised_on_what_could_not_be_read_back(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.store.close()
    torn = Torn(tmp_path)
    torn.start(lambda _: None, lambda _: None)
    office.promises._store = torn
    torn.is_torn = True
    with pytest.raises(sqlite3.OperationalError):
        office.promises.restore()
    assert office.promises.unreadable == "disk I/O error"
    with pytest.raises(StoreUnreadable):
        office.promises.admit()
    torn.is_torn = False
    office.promises.restore()
    office.promises.admit()
    torn.close()


# Standing reservations.


def standing(gib: float = 1) -> dict[str, ReserveRequest]:
    size = int(gib * GIB)
    asked = ReserveRequest(
        owner="me", bytes=size, devices=(GPU,), standing=True, ttl_seconds=None,
        max_wait_seconds=None,
    )  # fmt: skip
    return {"voice": asked}


async def test_until_it_begins_nobody_is_granted_whoever_stands(office: Office) -> None:
    await office.reserve("h", size=20 * GIB)
    await office.reserve("q", size=20 * GIB, max_wait_seconds=None)
    office.promises.waiting_for = "the first sample of every device"
    await office.release("h")
    office.show()
    office.promises.stand(standing(8), keep=frozenset())
    books = office.promises.ledger.books
    assert {id_: held.state for id_, held in books.reservations.items()} == {
        "h": ReservationState.RELEASED,
        "q": ReservationState.QUEUED,
        "voice": ReservationState.QUEUED,
    }
    office.promises.begin()
    assert books.reservations["voice"].state is ReservationState.GRANTED
    assert books.reservations["q"].state is ReservationState.QUEUED  # 16 GiB are left
    await office.promises.settled()
    durable = office.promises.durable.reservations
    assert durable["voice"].state is ReservationState.GRANTED


async def test_standing_ones_are_kept_count_of_and_whoever_waits_gets_what_they_leave(
    office: Office,
) -> None:
    office.promises.stand(standing(3), keep=frozenset())
    assert set(office.promises.ledger.books.standing) == {"voice"}
    await office.reserve("h", size=20 * GIB)
    waiting = await office.reserve("q", size=3 * GIB, max_wait_seconds=None)
    assert waiting.queued
    office.promises.stand({}, keep=frozenset())
    assert not office.promises.ledger.books.standing
    await office.promises.settled()
    assert office.promises.durable.reservations["q"].state is ReservationState.GRANTED


# The first format.

V1_SCHEMA = """
CREATE TABLE rows (
    kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    wall REAL NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX events_by_subject ON events (subject, sequence);
PRAGMA user_version = 1;
"""


def v1_reservation(id_: str, **more: Any) -> dict[str, Any]:
    """As the first version wrote one."""
    clock = FakeClock()
    deadline = {"boot_id": clock.boot_id, "boottime": clock.boottime + 60, "wall": clock.wall + 60}
    return {
        "id": id_, "owner": "me", "kind": "leased", "state": "granted",
        "grants": [{"device": GPU, "bytes": 2 * GIB, "residue_before_bytes": None}],
        "generation": 3, "created_wall": clock.wall - 100.0, "ttl_seconds": 90.0,
        "deadline": deadline, "labels": {"job": "night"}, "instance": None, "bound": True,
        "ending": None, "release_deadline": None, "ended": None, "reason": "",
    } | more  # fmt: skip


def v1_database(folder: Path, rows: dict[tuple[str, str], bytes]) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.executescript(V1_SCHEMA)
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?)", [(*key, body) for key, body in rows.items()]
        )
    connection.close()


async def test_a_state_of_the_first_version_is_brought_to_this_one(tmp_path: Path) -> None:
    held = {"kind": "held", "ttl_seconds": None, "deadline": None, "instance": "tiny-1"}
    rows = {
        ("reservation", "r-1"): json.dumps(v1_reservation("r-1")).encode(),
        ("reservation", "r-2"): json.dumps(v1_reservation("r-2", **held)).encode(),
        ("leak", GPU): json.dumps({"boot_id": "boot-1", "bytes": GIB}).encode(),
    }
    v1_database(tmp_path, rows)
    office = Office(tmp_path)
    assert office.promises.unreadable == ""
    found = office.promises.durable.reservations
    first, second = found["r-1"], found["r-2"]
    assert first.request == ReserveRequest(
        owner="me", bytes=2 * GIB, devices=(GPU,), ttl_seconds=90.0, labels={"job": "night"}
    )
    assert (first.generation, first.ttl_seconds, first.bound) == (3, 90.0, True)
    assert first.grants == (Grant(device=GPU, bytes=2 * GIB),)
    assert first.deadline == Deadline(boot_id="boot-1", boottime=1060.0, wall=1.7e9 + 60)
    assert first.created.wall == 1.7e9 - 100.0
    assert (second.kind, second.instance) == (ReservationKind.HELD, "tiny-1")
    assert office.promises.durable.device(GPU).leaked_bytes == GIB
    await office.release("r-1")
    office.close()
    # Once, and for good: the next life finds the present format.
    connection = sqlite3.connect(tmp_path / "state.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()
    again = Office(tmp_path)
    assert set(again.promises.durable.reservations) == {"r-1", "r-2"}
    again.close()


async def test_a_row_of_the_first_version_that_makes_no_sense_is_left_and_told(
    tmp_path: Path,
) -> None:
    v1_database(tmp_path, {("reservation", "r-1"): BAD, ("reservation", "r-2"): b"{"})
    office = Office(tmp_path)
    assert "the row reservation 'r-1'" in office.promises.unreadable
    assert dict(office.store.read_rows("reservation")) == {"r-1": BAD, "r-2": b"{"}
    office.close()


def test_what_is_of_the_present_format_or_another_kind_stays_as_it_is() -> None:
    rows = [("reservation", "a", b'{"id": "a", "request": {}}'), ("leak", "b", b"{}")]
    assert list(from_version_1(rows)) == []


async def test_a_call_that_is_refused_after_all_is_forgotten(office: Office) -> None:
    """Sent again it answered OK, with the ended reservation of the first time."""
    call = Call(method="Reserve", request_id="driver-or-nothing", digest="d")
    request = ReserveRequest(owner="me", bytes=GIB, devices=(GPU,))
    made = await office.promises.reserve(request, "a", call)
    await office.promises.revoke(made.id, "the driver does not", call)
    ended = office.promises.durable.reservations["a"]
    assert (ended.state, ended.reason) == (ReservationState.REVOKED, "the driver does not")
    assert office.promises.requests.find(call) is None
    office.promises.restore()
    assert office.promises.requests.find(call) is None


async def test_what_follows_an_uncordon_waits_until_that_is_durable(office: Office) -> None:
    lifted: list[str] = []
    office.promises.on_uncordon = lifted.append
    call = Call(method="UncordonDevice")
    await office.promises.cordon(GPU, None, "anna", call)  # it bears none: nothing is written
    assert lifted == [GPU]
    await office.promises.cordon(GPU, Cordon(reason="fan", actor="anna", wall=1.0), "anna", call)
    office.store.room_without_ballast, office.store.full = False, True
    lost = office.promises.commit(Change(), (Row(kind="thing", id="large", body=bytes(2**20)),))
    with pytest.raises(StoreReadOnly):
        await office.promises.cordon(GPU, None, "anna", call)
    with pytest.raises(StoreReadOnly):
        await lost
    assert lifted == [GPU]
    office.store.full = False
    assert await asyncio.to_thread(office.store.recovered.wait, 60)
    await office.promises.cordon(GPU, None, "anna", call)
    assert lifted == [GPU, GPU]


async def test_what_was_refused_twice_at_once_leaves_what_was_granted_since(
    office: Office,
) -> None:
    """Two calls of one id waited for the driver; after the first refusal a third was granted."""
    call = Call(method="Reserve", request_id="driver-or-nothing", digest="d")
    request = ReserveRequest(owner="me", bytes=GIB, devices=(GPU,))
    await office.promises.reserve(request, "a", call)
    await office.promises.revoke("a", "the driver does not", call)
    made = await office.promises.reserve(request, "b", call)
    await office.promises.revoke("a", "the driver does not", call)
    again = await office.promises.reserve(request, "c", call)
    assert (again.id, again.state) == (made.id, ReservationState.GRANTED)
