"""The journal: filtered, paged, followed from any sequence without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpud.events import _FOLLOW_PAGE, Event, Filter, Journal
from gpud.store import SqliteStore, Write

PATIENCE_SECONDS = 60.0


class Book:
    """A journal on a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory)
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
    (read,) = book.journal.page(Filter(), None, 10)
    assert read.sequence == 1
    assert (read.wall, read.type, read.subject) == (told.wall, told.type, told.subject)
    assert (read.actor, read.reason, read.details) == (told.actor, told.reason, told.details)


async def test_a_type_keeps_itself_and_its_children_alone(book: Book) -> None:
    kinds = ("node", "node.ready", "node.ready.again", "nodes.ready", "nod", "node_ready", "n%de")
    await book.tell(*(event(kind) for kind in kinds))

    def kept(type_: str) -> set[str]:
        return {each.type for each in book.journal.page(Filter(type=type_), None, 10)}

    assert kept("node") == {"node", "node.ready", "node.ready.again"}
    assert kept("node.ready") == {"node.ready", "node.ready.again"}
    assert kept("n%de") == {"n%de"}  # no pattern of the database's
    assert kept("' OR 1 --") == set()


async def test_subject_and_moment_narrow_too(book: Book) -> None:
    await book.tell(
        event(subject="a", wall=1.0), event(subject="b", wall=2.0), event(subject="a", wall=3.0)
    )
    page = book.journal.page
    assert [each.sequence for each in page(Filter(subject="a"), None, 10)] == [3, 1]
    assert [each.sequence for each in page(Filter(since_wall=2.0), None, 10)] == [3, 2]
    assert [each.sequence for each in page(Filter(subject="a", since_wall=2.0), None, 10)] == [3]


async def test_pages_go_back_in_time(book: Book) -> None:
    await book.tell(*(event() for _ in range(5)))
    page = book.journal.page
    assert [each.sequence for each in page(Filter(), None, 2)] == [5, 4]
    assert [each.sequence for each in page(Filter(), 4, 2)] == [3, 2]
    assert [each.sequence for each in page(Filter(), 2, 2)] == [1]
    assert page(Filter(), 1, 2) == []


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
