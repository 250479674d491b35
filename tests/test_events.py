"""The journal: filtered, paged, followed from any sequence without a gap."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpud.events import _FOLLOW_PAGE, _RECENT, Cause, Event, EventsPruned, Filter, Journal
from gpud.retention import LINE_BYTES, MAX_PRUNED, Retention, line_bytes
from gpud.store import SqliteStore, Write

PATIENCE_SECONDS = 60.0


class Book:
    """A journal on a store of its own."""

    def __init__(self, directory: Path, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.store = SqliteStore(directory, max_bytes)
        self.journal = Journal(self.store)
        self.store.start(self.journal.committed, lambda cause: None)

    async def tell(self, *events: Event) -> None:
        written = self.store.append(Write(entries=tuple(event.entry() for event in events)))
        await asyncio.wait_for(written, PATIENCE_SECONDS)

    async def read(self, count: int, after: int = 0, **wanted: str) -> list[int]:
        """The sequences of the next events after one."""
        found: list[int] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in self.journal.follow(Filter(**wanted), after):  # type: ignore[arg-type]
                found.append(event.sequence)
                if len(found) == count:
                    break
        return found


def event(type_: str = "thing.made", subject: str = "node", wall: float = 1.0) -> Event:
    return Event(wall=wall, type=type_, subject=subject)


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    made = Book(tmp_path)
    yield made
    made.store.close()


async def test_an_event_is_read_back_as_it_was_told(book: Book) -> None:
    told = Event(
        wall=1700000000.25,
        type="reservation.granted",
        subject="reservations/r-1",
        actor="anna@host",
        reason="because — ✓",
        details={"bytes": "17", "devices": "a,b"},
    )
    await book.tell(told)
    (read,) = await book.journal.page(Filter(), None, 10)
    assert read.sequence == 1
    assert (read.wall, read.type, read.subject) == (told.wall, told.type, told.subject)
    assert (read.actor, read.reason, read.details) == (told.actor, told.reason, told.details)


async def test_a_type_keeps_itself_and_its_children_alone(book: Book) -> None:
    kinds = ("node", "node.ready", "node.ready.again", "nodes.ready", "nod", "node_ready", "n%de")
    await book.tell(*(event(kind) for kind in kinds))

    async def kept(type_: str) -> set[str]:
        return {each.type for each in await book.journal.page(Filter(type=type_), None, 10)}

    assert await kept("node") == {"node", "node.ready", "node.ready.again"}
    assert await kept("node.ready") == {"node.ready", "node.ready.again"}
    assert await kept("n%de") == {"n%de"}  # no pattern of the database's
    assert await kept("' OR 1 --") == set()


async def test_subject_and_moment_narrow_too(book: Book) -> None:
    await book.tell(
        event(subject="a", wall=1.0), event(subject="b", wall=2.0), event(subject="a", wall=3.0)
    )
    page = book.journal.page
    assert [each.sequence for each in await page(Filter(subject="a"), None, 10)] == [3, 1]
    assert [each.sequence for each in await page(Filter(since_wall=2.0), None, 10)] == [3, 2]
    assert [
        each.sequence for each in await page(Filter(subject="a", since_wall=2.0), None, 10)
    ] == [3]


async def test_pages_go_back_in_time(book: Book) -> None:
    await book.tell(*(event() for _ in range(5)))
    page = book.journal.page
    assert [each.sequence for each in await page(Filter(), None, 2)] == [5, 4]
    assert [each.sequence for each in await page(Filter(), 4, 2)] == [3, 2]
    assert [each.sequence for each in await page(Filter(), 2, 2)] == [1]
    assert await page(Filter(), 1, 2) == []


async def test_a_follower_reads_the_past_in_order_then_the_present(book: Book) -> None:
    past, present = _FOLLOW_PAGE * 2 + 3, 40
    await book.tell(*(event() for _ in range(past)))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(book.read(past + present))
        for _ in range(present):
            await book.tell(event())
    assert reading.result() == list(range(1, past + present + 1))


async def test_resuming_after_a_sequence_loses_and_repeats_nothing(book: Book) -> None:
    """A client that is cut off again and again, while events go on."""
    total, read = 60, list[int]()
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell_one_by_one(book, total))
        while len(read) < total:
            read += await book.read(min(7, total - len(read)), after=len(read))
        await telling
    assert read == list(range(1, total + 1))


async def _tell_one_by_one(book: Book, total: int) -> None:
    for _ in range(total):
        await book.tell(event())


async def test_a_follower_of_a_rare_type_is_woken_for_it(book: Book) -> None:
    await book.tell(*(event("noise") for _ in range(_FOLLOW_PAGE + 10)))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(book.read(1, type="signal"))
        await book.tell(*(event("noise") for _ in range(10)))
        await book.tell(event("signal"))
    assert reading.result() == [book.journal.last_sequence]


async def test_a_new_life_goes_on_counting(tmp_path: Path) -> None:
    first = Book(tmp_path)
    await first.tell(event(), event())
    first.store.close()
    second = Book(tmp_path)
    assert second.journal.last_sequence == 2
    await second.tell(event())
    assert await second.read(3) == [1, 2, 3]
    second.store.close()


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(type="thing"),
        Filter(type="thing.made"),
        Filter(type="thin"),
        Filter(subject="b"),
        Filter(since_wall=3.0),
        Filter(until_wall=3.0),
        Filter(request_id="r-1"),
        Filter(type="thing.lost", subject="b", since_wall=2.0, until_wall=9.0, request_id="r-2"),
    ],
)
async def test_memory_and_store_keep_the_same(book: Book, wanted: Filter) -> None:
    """What is new comes from memory, what is old from the store."""
    causes = (None, Cause(method="S/M", request_id="r-1", caller="anna"), Cause(
        method="S/M", request_id="r-2", caller="bert"
    ))  # fmt: skip
    told = [
        Event(wall=float(number), type=type_, subject=subject, cause=causes[number % 3])
        for number, (type_, subject) in enumerate(
            (type_, subject)
            for type_ in ("thing", "thing.made", "thing.lost", "thingmade")
            for subject in ("a", "b")
        )
    ]
    await book.tell(*told)
    stored = await book.journal.page(wanted, None, 100)
    kept = [each for each in await book.journal.page(Filter(), None, 100) if wanted.keeps(each)]
    assert [each.sequence for each in stored] == [each.sequence for each in kept]


async def test_a_call_that_is_named_is_read_back(book: Book) -> None:
    await book.tell(
        Event(
            wall=1.0, type="a", subject="s", cause=Cause(method="S/M", request_id="", caller="x")
        ),
        event("b"),
    )
    second, first = await book.journal.page(Filter(), None, 10)
    assert first.cause is not None
    assert (first.cause.method, first.cause.caller) == ("S/M", "x")
    assert second.cause is None


async def _until_pruned(book: Book, most: int = 10_000) -> int:
    """Tell events until the oldest go; the number of the oldest that is kept."""
    for _ in range(most):
        await book.tell(*(event() for _ in range(50)))
        oldest = await book.journal.oldest()
        if oldest is not None and oldest.sequence > 1:
            return oldest.sequence
    raise AssertionError("nothing was pruned")


async def _out_of_memory(book: Book) -> None:
    """What was told so far is only in the store, if at all."""
    for _ in range(2 * _RECENT // 100 + 1):
        await book.tell(*(event() for _ in range(100)))
    # A commit is told before its prune: with the second of two more, all is done.
    for _ in range(2):
        await book.tell()


async def _exhaust(followed: AsyncIterator[Event]) -> None:
    async for _ in followed:
        pass


# Some three thousand events, more than are in memory.
SMALL_BYTES = 256 * 1024


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Book]:
    made = Book(tmp_path, SMALL_BYTES)
    yield made
    made.store.close()


async def test_the_oldest_go_by_size_and_no_number_is_given_twice(small: Book) -> None:
    await _until_pruned(small)
    await _out_of_memory(small)
    rows = small.store.read_entries("1", (), 10**6, newest_first=False)
    numbers = [row[0] for row in rows]
    assert numbers == [*range(numbers[0], small.journal.last_sequence + 1)]
    sizes = [line_bytes(row[2], row[3], row[4]) for row in rows]
    # A batch may be on top of it until its own prune.
    assert SMALL_BYTES * 0.8 < sum(sizes) <= SMALL_BYTES + 100 * max(sizes)


async def test_a_smaller_size_counts_from_the_next_commit_and_in_the_next_life(
    tmp_path: Path,
) -> None:
    first = Book(tmp_path)
    for _ in range(30):
        await first.tell(*(event() for _ in range(100)))
    first.store.close()
    second = Book(tmp_path, SMALL_BYTES // 4)
    assert (await second.journal.oldest() or event()).sequence == 1  # a start waits for nothing
    assert await _until_pruned(second) > 1
    second.store.close()


def test_a_prune_lets_go_of_a_part_at_a_time() -> None:
    """So that no commit waits long for it."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY, type TEXT, subject TEXT, body BLOB)"
    )
    lines = 3 * MAX_PRUNED
    connection.executemany(
        "INSERT INTO events VALUES (?, 'a', 's', x'')", zip(range(lines), strict=False)
    )
    kept, retention = [lines], Retention(max_bytes=10 * LINE_BYTES)
    for _ in range(4):
        retention.prune(connection)
        kept.append(connection.execute("SELECT count(*) FROM events").fetchone()[0])
    assert kept[:3] == [lines, lines - MAX_PRUNED, lines - 2 * MAX_PRUNED]
    assert 0 < kept[3] == kept[4] <= 10


async def test_one_event_larger_than_all_stays(tmp_path: Path) -> None:
    book = Book(tmp_path, 64 * 1024)
    huge = Event(wall=1.0, type="a", subject="s", reason="x" * 100_000)
    await book.tell(huge)
    await book.tell(huge)
    await book.tell(event())
    assert (await book.journal.page(Filter(), None, 10))[0].sequence == 3
    book.store.close()


async def test_who_asks_for_what_is_gone_is_told_where_it_begins(small: Book) -> None:
    await _until_pruned(small)
    await _out_of_memory(small)
    oldest, newest = await small.journal.oldest(), small.journal.last_sequence
    assert oldest is not None
    begins = oldest.sequence
    with pytest.raises(EventsPruned) as caught:
        await small.read(1, after=begins - 2)
    refused = caught.value
    assert (refused.after_sequence, refused.oldest_sequence) == (begins - 2, begins)
    assert f"after_sequence {begins - 1}" in str(refused)
    assert await small.read(2, after=begins - 1) == [begins, begins + 1]
    assert await small.read(1, after=0) == [begins]  # from where it begins
    assert await small.read(1, after=newest - 1) == [newest]


async def test_what_is_gone_and_still_in_memory_is_for_those_who_follow_already(
    tmp_path: Path,
) -> None:
    book = Book(tmp_path, 4096)
    await book.tell(event())
    followed = book.journal.follow(Filter(), 0)
    assert (await anext(followed)).sequence == 1
    for _ in range(4):
        await book.tell(*(event() for _ in range(50)))
    for _ in range(2):  # as above: all is done
        await book.tell()
    begins = (await book.journal.oldest() or event()).sequence
    assert 3 < begins < _RECENT
    assert await book.read(1, after=0) == [begins]
    with pytest.raises(EventsPruned):
        await book.read(1, after=1)
    assert (await anext(followed)).sequence == 2
    await followed.aclose()
    book.store.close()


async def test_a_follower_whom_the_end_overtakes_is_told(small: Book) -> None:
    """It took one event and then no more for a long time."""
    await small.tell(*(event() for _ in range(3)))
    followed = small.journal.follow(Filter(), 0)
    assert (await anext(followed)).sequence == 1
    begins = await _until_pruned(small)
    await _out_of_memory(small)
    await _out_of_memory(small)
    with pytest.raises(EventsPruned) as caught:
        await asyncio.wait_for(_exhaust(followed), PATIENCE_SECONDS)
    assert caught.value.oldest_sequence >= begins


async def test_a_follower_that_takes_no_more_holds_a_page_and_no_more(book: Book) -> None:
    await book.tell(*(event() for _ in range(10)))
    followed = [book.journal.follow(Filter(), 0) for _ in range(50)]
    for each in followed:
        await anext(each)
    for _ in range(20):
        await book.tell(*(event() for _ in range(200)))
    assert len(book.journal._recent) <= 2 * _RECENT + 200
    # And each still gets all that it did not take.
    rest = [(await anext(followed[0])).sequence for _ in range(500)]
    assert rest == [*range(2, 502)]
    for each in followed:
        await each.aclose()
