"""A history of the real store, run as a program so that what it tells the disk can be recorded.

    python -m tests.proof.history ROOT PART SYNCHRONOUS

ROOT/state is the state directory. Each acknowledged write adds its number to ROOT/acknowledged, in
the order of the record. The parts follow each other as the lives of a daemon do.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gpud.state_directory import state_directory
from gpud.store import Committed, Entry, Row, SqliteStore, Write

SEED = 20261121
# Where each life ends; the first is stopped in order, the others are cut off.
PARTS = (0, 150, 480, 620)
CLEAN_PARTS = {0}


class CarelessStore(SqliteStore):
    """As ours, but committing as `synchronous=NORMAL` does: the proof must find it out."""

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA synchronous = NORMAL").fetchone()
        return connection


def writes() -> list[Write]:
    """What leases leave in the store: promised, renewed, ended, forgotten, request ids beside."""
    chance = random.Random(SEED)
    made: list[Write] = []
    live: list[str] = []
    for number in range(PARTS[-1]):
        act = chance.choice(("reserve", "reserve", "renew", "release", "forget"))
        act = act if live else "reserve"
        id_ = f"r-{chance.getrandbits(32):08x}" if act == "reserve" else chance.choice(live)
        text = "x" * chance.choice((200, 900))
        body = msgspec.json.encode({"id": id_, "act": act, "number": number, "text": text})
        rows = [Row(kind="reservation", id=id_, body=None if act == "forget" else body)]
        if act == "reserve":
            live.append(id_)
            rows.append(Row(kind="request", id=f"q-{number}", body=body[:80]))
        if act == "forget":
            live.remove(id_)
        entry = Entry(wall=1.7e9 + number, type=f"reservation.{act}", subject=id_, body=body)
        made.append(Write(rows=tuple(rows), entries=(entry,) if act != "renew" else ()))
    return made


def fingerprint(
    rows: Iterable[tuple[str, str, bytes]], events: Iterable[tuple[int, str, str, bytes]]
) -> bytes:
    """The whole content of a store in a few bytes."""
    return hashlib.sha256(repr((sorted(rows), sorted(events))).encode()).digest()


def fingerprints(history: list[Write]) -> list[bytes]:
    """The content after each number of writes, from none to all."""
    rows: dict[tuple[str, str], bytes] = {}
    events: list[tuple[int, str, str, bytes]] = []
    told = [fingerprint([], [])]
    for write in history:
        for row in write.rows:
            rows.pop((row.kind, row.id), None)
            if row.body is not None:
                rows[row.kind, row.id] = row.body
        events += [
            (len(events) + at, each.type, each.subject, each.body)
            for at, each in enumerate(write.entries, 1)
        ]
        told.append(fingerprint([(*key, body) for key, body in rows.items()], events))
    return told


async def live(root: Path, part: int, store: SqliteStore) -> None:
    """One life: bursts of writes as clients make them, each acknowledged in its order."""
    chance = random.Random(SEED + part)
    history = writes()
    acknowledged = os.open(root / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store.start(lambda _: None, lambda cause: sys.exit(f"the store failed: {cause}"))
    number, end = PARTS[part], PARTS[part + 1]
    while number < end:
        burst = history[number : min(end, number + chance.choice((1, 1, 1, 1, 2, 7)))]
        waiting: list[asyncio.Future[Committed]] = [store.append(write) for write in burst]
        for done in waiting:
            await asyncio.wait_for(done, 60)
            number += 1
            os.write(acknowledged, b"%d\n" % number)
    if part in CLEAN_PARTS:
        store.close()
    else:
        os._exit(0)


def main() -> None:
    root, part, synchronous = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    make = SqliteStore if synchronous == "FULL" else CarelessStore
    with state_directory(root / "state") as directory:
        asyncio.run(live(root, part, make(directory)))


if __name__ == "__main__":
    main()
