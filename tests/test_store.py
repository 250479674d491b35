"""The store: what is acknowledged is on disk, what fails is void, a full disk takes releases."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gpud.errors import StateDirectoryRefused, StoreReadOnly
from gpud.store import BALLAST_BYTES, QUIET_TURNS, Committed, Entry, Row, SqliteStore, Write
from tests.fakes.store import CrampedStore

PATIENCE_SECONDS = 60.0


class Loop:
    """What the loop is told by a store."""

    def __init__(self) -> None:
        self.batches: list[list[Committed]] = []
        self.failures: list[str] = []

    def committed(self, commits: Sequence[Committed]) -> None:
        self.batches.append(list(commits))

    def failed(self, cause: str) -> None:
        self.failures.append(cause)

    @property
    def ids(self) -> list[str]:
        return [row.id for batch in self.batches for each in batch for row in each.write.rows]


@pytest.fixture
async def heard() -> Loop:
    return Loop()


@pytest.fixture
async def store(tmp_path: Path, heard: Loop) -> AsyncIterator[CrampedStore]:
    made = CrampedStore(tmp_path)
    made.start(heard.committed, heard.failed)
    yield made
    made.full = False
    made.gate.set()
    made.close()


def write(id_: str, body: bytes | None = b"{}", *, event: str = "") -> Write:
    entries = (Entry(wall=1.0, type=event, subject="node", body=b"[]"),) if event else ()
    return Write(rows=(Row(kind="thing", id=id_, body=body),), entries=entries)


def large(id_: str) -> Write:
    return write(id_, b"x" * 200_000)


async def done(future: asyncio.Future[Committed]) -> Committed:
    return await asyncio.wait_for(future, PATIENCE_SECONDS)


def on_disk(directory: Path) -> set[str]:
    """What another process would find, whatever the writer still holds in memory."""
    with sqlite3.connect(directory / "state.db") as connection:
        found = {id_ for (id_,) in connection.execute("SELECT id FROM rows")}
    connection.close()
    return found


async def test_an_acknowledged_write_is_on_disk(store: CrampedStore, tmp_path: Path) -> None:
    for number in range(20):
        await done(store.append(write(str(number))))
        assert str(number) in on_disk(tmp_path)


async def test_writes_that_wait_share_one_commit_in_their_order(
    store: CrampedStore, heard: Loop
) -> None:
    store.gate.clear()
    futures = [store.append(write(f"{number:03}", event="tick")) for number in range(100)]
    store.gate.set()
    answers = [await done(future) for future in futures]

    assert heard.ids == [f"{number:03}" for number in range(100)]
    assert [answer.sequences for answer in answers] == [(number,) for number in range(1, 101)]
    assert store.commit_count <= 2  # the first may have left alone
    assert store.write_count == 100


async def test_on_durable_and_on_commit_come_before_the_future(
    store: CrampedStore, heard: Loop
) -> None:
    order: list[str] = []
    future = store.append(write("a"), lambda: order.append(f"durable {len(heard.batches)}"))
    future.add_done_callback(lambda _: order.append(f"future {len(heard.batches)}"))
    await done(future)
    await asyncio.wait_for(asyncio.shield(future), PATIENCE_SECONDS)
    assert order == ["durable 0", "future 1"]


async def test_a_caller_that_leaves_does_not_undo_its_write(
    store: CrampedStore, heard: Loop, tmp_path: Path
) -> None:
    store.gate.clear()
    left = store.append(write("left"))
    stayed = store.append(write("stayed"))
    left.cancel()
    store.gate.set()
    await done(stayed)
    assert on_disk(tmp_path) == {"left", "stayed"}
    assert heard.ids == ["left", "stayed"]


async def test_nothing_of_a_failed_batch_is_acknowledged_or_written(
    store: CrampedStore, heard: Loop, tmp_path: Path
) -> None:
    await done(store.append(write("before")))
    store.full, store.room_without_ballast = True, False
    store.gate.clear()
    futures = [store.append(write("small")), store.append(large("large"))]
    store.gate.set()

    ends = await asyncio.wait_for(
        asyncio.gather(*futures, return_exceptions=True), PATIENCE_SECONDS
    )

    # The first may have been a batch of its own, which fitted: then it was written.
    told = {"small"} if isinstance(ends[0], Committed) else set()
    assert isinstance(ends[1], StoreReadOnly)
    assert on_disk(tmp_path) == {"before"} | told
    assert set(heard.ids) == {"before"} | told
    assert len(heard.failures) == 1
    assert store.read_only_cause


async def test_what_was_decided_on_a_lost_write_is_void_with_it(
    store: CrampedStore, heard: Loop, tmp_path: Path
) -> None:
    """Appended after the failure and before the loop heard of it: built on memory that is void."""
    store.full, store.room_without_ballast = True, False
    store.gate.clear()  # it may not fail while the loop runs, which would hear of it
    lost = store.append(large("lost"))
    for _ in range(QUIET_TURNS):  # until the writer has it
        await asyncio.sleep(0)
    store.gate.set()
    assert store.failed.wait(PATIENCE_SECONDS)  # the loop is held up here
    built_on_it = store.append(write("built on it"))

    ends = await asyncio.wait_for(
        asyncio.gather(lost, built_on_it, return_exceptions=True), PATIENCE_SECONDS
    )

    assert [type(end) for end in ends] == [StoreReadOnly, StoreReadOnly]
    assert on_disk(tmp_path) == set()
    assert len(heard.failures) == 1


async def test_on_a_full_disk_the_ballast_makes_room_for_releases(
    store: CrampedStore, heard: Loop, tmp_path: Path
) -> None:
    await done(store.append(write("lease")))
    assert (tmp_path / "ballast").stat().st_size == BALLAST_BYTES
    store.full = True

    await done(store.append(large("last")))  # written, by what the ballast gave back

    assert "last" in on_disk(tmp_path)
    assert not (tmp_path / "ballast").exists()
    assert store.read_only_cause  # so that nothing new is granted
    await done(store.append(write("lease", None)))
    assert "lease" not in on_disk(tmp_path)
    assert heard.failures == []


async def test_it_recovers_by_itself_once_there_is_room(
    store: CrampedStore, tmp_path: Path
) -> None:
    store.full = True
    await done(store.append(large("last")))
    assert store.read_only_cause
    store.full = False

    assert await asyncio.to_thread(store.recovered.wait, PATIENCE_SECONDS)

    assert (tmp_path / "ballast").stat().st_size == BALLAST_BYTES
    await done(store.append(large("after")))


async def test_what_waits_is_committed_on_close(tmp_path: Path, heard: Loop) -> None:
    store = CrampedStore(tmp_path)
    store.start(heard.committed, heard.failed)
    for number in range(50):
        store.append(write(str(number)))
    store.close()
    assert on_disk(tmp_path) == {str(number) for number in range(50)}


async def test_rows_and_entries_are_read_back(store: CrampedStore) -> None:
    await done(store.append(write("b", b"2", event="x")))
    await done(store.append(write("a", b"1", event="y")))
    await done(store.append(write("b", b"3", event="z")))
    assert store.read_rows("thing") == [("a", b"1"), ("b", b"3")]
    assert store.read_rows("other") == []
    told = store.read_entries("sequence > ?", (1,), 10, newest_first=True)
    assert [(sequence, type_) for sequence, _, type_, _, _ in told] == [(3, "z"), (2, "y")]


def test_sequences_are_never_given_twice(tmp_path: Path) -> None:
    """A journal whose newest lines were pruned goes on counting where it was."""
    SqliteStore(tmp_path)._reader.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        insert = "INSERT INTO events (wall, type, subject, body) VALUES (1, 't', 's', '[]')"
        first = connection.execute(insert).lastrowid
        connection.execute("DELETE FROM events")
        assert connection.execute(insert).lastrowid == (first or 0) + 1
    connection.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateDirectoryRefused, match="written by a newer gpud"):
        SqliteStore(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database, but long enough to be read as one" * 20)
    with pytest.raises(StateDirectoryRefused, match=r"state\.db"):
        SqliteStore(tmp_path)


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from gpud.errors import StoreReadOnly
from gpud.store import Row, SqliteStore, Write

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    failures = []
    store.start(lambda commits: None, failures.append)
    def put(id_, body):
        return asyncio.wait_for(store.append(Write(rows=(Row(kind="t", id=id_, body=body),))), 10)
    await put("before", b"1")
    wal = Path(sys.argv[1], "state.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 20_000, resource.RLIM_INFINITY))
    acknowledged = ["before"]
    for number in range(8):
        try:
            await put(f"n{number}", b"x" * 6000)
            acknowledged.append(f"n{number}")
        except StoreReadOnly:
            break
    assert store.read_only_cause, "the limit was never met"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(*acknowledged)
    print(len(failures))
    sys.stdout.flush()
    import os
    os._exit(0)  # no last commit: what was acknowledged must be there without it

asyncio.run(main())
"""


def test_a_limit_of_the_kernel_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The real errors of a real file that may not grow (SIGXFSZ is ignored by Python)."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    acknowledged, failures = ended.stdout.splitlines()
    assert on_disk(tmp_path) == set(acknowledged.split())
    assert int(failures) == 1


async def test_a_text_that_cannot_be_stored_fails_alone(
    store: CrampedStore, heard: Loop, tmp_path: Path
) -> None:
    """Its transaction stayed open, and every later batch failed with it."""
    with pytest.raises(StoreReadOnly):
        await done(store.append(write("a", event="half a \ud800 pair")))
    await done(store.append(write("b")))
    assert on_disk(tmp_path) == {"b"}
    assert len(heard.failures) == 1
