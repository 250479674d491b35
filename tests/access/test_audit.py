"""The audit: every change and every refusal is a line, whatever the disk and the callers do."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from gpud.access.audit import FLUSH_SECONDS, Audit, AuditEntry, event_of
from gpud.access.auditing import file as audit_file
from gpud.config import load
from gpud.errors import ConfigInvalid
from gpud.settings import Audit as Settings
from gpud.settings import Size
from tests.fakes.clock import FakeClock


def entry(**facts: Any) -> AuditEntry:
    made = {
        "wall": 1.7e9,
        "name": "anna@host",
        "role": "operator",
        "proof": "user",
        "origin": "operator.sock",
        "method": "ReservationService/Reserve",
        "outcome": "OK",
    }
    return AuditEntry(**{**made, **facts})


def refusal(**facts: Any) -> AuditEntry:
    what = {"outcome": "PERMISSION_DENIED", "reason": "NOT_OWNER", "message": "cannot change it"}
    return entry(**{**what, **facts})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


class Book:
    """An audit in a folder, with a clock that stands still."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.audit = Audit(Settings(**settings), folder, self.clock)
        self.path = self.audit.path

    def lines(self) -> list[dict[str, Any]]:
        return lines(self.path)

    async def write(self, *entries: AuditEntry) -> list[dict[str, Any]]:
        for each in entries:
            self.audit.record(each)
        await self.audit.flush()
        return self.lines()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


# What a line says.


async def test_a_change_is_a_line_with_who_from_where_what_and_how_it_ended(book: Book) -> None:
    what = {"subject": "reservations/r-1", "request_id": "q-7", "milliseconds": 1.23456}
    done = entry(role="admin", owner="bert", **what)
    assert await book.write(done) == [
        {
            "time": "2023-11-14T22:13:20.000+00:00",
            "name": "anna@host",
            "role": "admin",
            "proof": "user",
            "origin": "operator.sock",
            "method": "ReservationService/Reserve",
            "outcome": "OK",
            "milliseconds": 1.235,
            "subject": "reservations/r-1",
            "owner": "bert",
            "request_id": "q-7",
        }
    ]


async def test_a_refusal_says_why(book: Book) -> None:
    (line,) = await book.write(refusal(owner="anna@host"))
    assert line["outcome"] == "PERMISSION_DENIED"
    assert (line["reason"], line["message"]) == ("NOT_OWNER", "cannot change it")
    assert "owner" not in line  # nobody else's


@pytest.mark.parametrize(
    "text", ["a\nb\r\x1b[2J", "\u202egnp.exe", "\x7f\x85\u2028", '"\\', "\ud800", "漢" * 300]
)
async def test_no_text_breaks_a_line_or_a_terminal(book: Book, text: str) -> None:
    fields = ("name", "origin", "method", "subject", "request_id", "message")
    book.audit.record(refusal(**dict.fromkeys(fields, text)))
    await book.audit.flush()
    raw = book.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw)
    (line,) = book.lines()
    assert all(line[field] == text[:256] for field in fields)


async def test_a_text_without_end_is_cut(book: Book) -> None:
    (line,) = await book.write(entry(request_id="x" * 10**6, subject="y" * 257))
    assert (len(line["request_id"]), len(line["subject"])) == (256, 256)


# The file.


async def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        book = Book(tmp_path)
        await book.write(entry())
    finally:
        os.umask(before)
    assert book.path == tmp_path / "audit.jsonl"
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600


async def test_nothing_is_made_before_there_is_something_to_write(book: Book) -> None:
    await book.audit.flush()
    await book.audit.close()
    assert not book.path.exists()


class Telling(ThreadPoolExecutor):
    """An audit's thread; counts what it is given, and tells when `most` of it is done."""

    def __init__(self, book: Book, most: int) -> None:
        super().__init__(max_workers=1)
        self.begun, self.done = 0, asyncio.Event()
        self._most, self._loop = most, asyncio.get_running_loop()
        book.audit._thread = self

    def submit(self, *work: Any, **more: Any) -> Any:
        self.begun += 1
        future = super().submit(*work, **more)
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._count))
        return future

    def _count(self) -> None:
        self._most -= 1
        if not self._most:
            self.done.set()


async def test_it_is_written_by_itself_soon_after(book: Book) -> None:
    done = Telling(book, 1).done
    book.audit.record(entry(subject="a"))
    book.audit.record(entry(subject="b"))
    assert not book.path.exists()
    async with asyncio.timeout(60):
        await done.wait()
    assert [line["subject"] for line in book.lines()] == ["a", "b"]


async def test_it_goes_on_where_an_earlier_life_ended(book: Book, tmp_path: Path) -> None:
    await book.write(entry(subject="a"))
    await book.audit.close()
    again = Book(tmp_path)
    assert [line["subject"] for line in await again.write(entry(subject="b"))] == ["a", "b"]


async def test_a_line_that_was_cut_off_does_not_spoil_the_next(book: Book) -> None:
    book.path.write_text('{"time": "20')
    book.audit.record(entry(subject="b"))
    await book.audit.flush()
    first, second = book.path.read_text().splitlines()
    assert first == '{"time": "20'
    assert json.loads(second)["subject"] == "b"


async def test_a_file_that_was_moved_away_is_made_anew(book: Book, tmp_path: Path) -> None:
    await book.write(entry(subject="a"))
    book.path.rename(tmp_path / "elsewhere")
    assert [line["subject"] for line in await book.write(entry(subject="b"))] == ["b"]


async def test_it_is_where_the_settings_say(tmp_path: Path) -> None:
    book = Book(tmp_path / "state", path=str(tmp_path / "log.jsonl"))
    await book.write(entry())
    assert os.listdir(tmp_path) == ["log.jsonl"]


def kept(book: Book) -> list[str]:
    """The subjects in all files of an audit, the oldest file first."""
    count = len(os.listdir(book.path.parent)) - 1
    older = [Path(f"{book.path}.{number}") for number in range(count, 0, -1)]
    assert all(each.stat().st_size <= 1000 for each in (*older, book.path))
    return [line["subject"] for each in (*older, book.path) for line in lines(each)]


async def test_files_are_kept_as_many_and_as_large_as_set(tmp_path: Path) -> None:
    book = Book(tmp_path, max_bytes=Size(1000), keep=2)
    for number in range(40):
        await book.write(entry(subject=f"n{number}"))
    assert len(os.listdir(tmp_path)) == 3
    found = kept(book)
    assert len(found) >= 8
    assert found == [f"n{number}" for number in range(40 - len(found), 40)]


async def test_one_batch_may_fill_several_files(tmp_path: Path) -> None:
    book = Book(tmp_path, max_bytes=Size(1000), keep=100)
    await book.write(*(entry(subject=f"n{number}") for number in range(40)))
    assert kept(book) == [f"n{number}" for number in range(40)]


async def test_lines_keep_their_order_under_load(book: Book) -> None:
    for number in range(3000):
        book.audit.record(entry(subject=str(number)))
        if number % 1000 == 0:
            await book.audit.flush()
    await book.audit.close()
    assert [int(line["subject"]) for line in book.lines()] == list(range(3000))


# A disk that does not take it.


def full(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """The disk takes so many bytes more; the list's number may be changed."""
    room, write = [after], os.write

    def limited(descriptor: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(audit_file.os, "write", limited)
    return room


async def test_what_a_full_disk_does_not_take_is_counted_and_told(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    await book.write(entry(subject="a"))
    # Enough for one line and a part of the next.
    room = full(monkeypatch, book.path.stat().st_size + 50)
    with structlog.testing.capture_logs() as logs:
        for subject in "bcd":
            book.audit.record(entry(subject=subject))
        await book.audit.flush()
        book.audit.record(entry(subject="e"))
        await book.audit.flush()
    assert [(each["event"], each["problem"]) for each in logs] == [
        ("audit.lost", "No space left on device")
    ]
    room[0] = 10**6
    book.audit.record(entry(subject="f"))
    book.audit.record(entry(subject="g"))
    await book.audit.flush()
    whole = [line for line in book.path.read_text().splitlines() if line.endswith("}")]
    told = [json.loads(line) for line in whole]
    assert [each.get("subject") for each in told] == ["a", "b", None, "f", "g"]
    assert (told[2]["lost"], told[2]["problem"]) == (3, "No space left on device")


async def test_after_it_went_well_again_the_next_outage_is_logged_too(
    tmp_path: Path,
) -> None:
    book = Book(tmp_path, path=str(tmp_path / "gone" / "a.jsonl"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            for _ in range(3):
                book.audit.record(entry())
                await book.audit.flush()
            book.path.parent.mkdir()
            book.audit.record(entry())
            await book.audit.flush()
            assert book.lines()[0]["lost"] == 3
            book.path.unlink()
            book.path.parent.rmdir()
    assert [each["event"] for each in logs] == ["audit.lost"] * 2


async def test_what_comes_while_a_write_goes_on_is_written_by_itself_too(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, write = Telling(book, 2), os.write
    began, goes_on, looked = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(descriptor: int, data: bytes) -> int:
        loop.call_soon_threadsafe(began.set)
        goes_on.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(audit_file.os, "write", slow)
    async with asyncio.timeout(60):
        book.audit.record(entry(subject="a"))
        await began.wait()
        book.audit.record(entry(subject="b"))
        loop.call_later(3 * FLUSH_SECONDS, looked.set)  # it was looked at meanwhile
        await looked.wait()
        assert threads.begun == 1
        goes_on.set()
        await threads.done.wait()
    assert [line["subject"] for line in book.lines()] == ["a", "b"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
async def test_it_writes_through_nothing_that_somebody_put_there(
    book: Book, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    if kind == "link":
        book.path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(book.path)
    else:
        book.path.mkdir()
    with structlog.testing.capture_logs() as logs:
        book.audit.record(entry())
        await book.audit.flush()
    assert [each["event"] for each in logs] == ["audit.lost"]
    assert target.read_text() == "mine"


async def test_a_disk_that_hangs_holds_one_thread_and_a_bounded_number_of_lines(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, began, write = threading.Event(), threading.Semaphore(0), os.write
    inside: list[int] = []
    threads = Telling(book, 0)

    def slow(descriptor: int, data: bytes) -> int:
        inside.append(threading.get_ident())
        began.release()
        hangs.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(audit_file.os, "write", slow)
    monkeypatch.setattr("gpud.access.audit.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("gpud.access.audit.MAX_WAIT_SECONDS", 0.01)
    try:
        book.audit.record(entry(subject="first"))
        await asyncio.to_thread(began.acquire, timeout=60)
        for number in range(audit_file.MAX_PENDING + 7):
            assert book.audit.record(entry(subject=str(number)))
            if number % 1000 == 0:
                await book.audit.flush()
        assert len(inside) == 1
        assert threads.begun == 1
    finally:
        hangs.set()
    monkeypatch.setattr("gpud.access.audit.MAX_WAIT_SECONDS", 60.0)
    await book.audit.close()
    found = book.lines()
    assert found[0]["subject"] == "first"
    assert (found[1]["lost"], found[1]["problem"]) == (7, "the disk was too slow")
    assert [int(line["subject"]) for line in found[2:]] == list(range(audit_file.MAX_PENDING))


# Refusals without end.


async def test_changes_are_all_written_and_refusals_five_a_minute(book: Book) -> None:
    recorded = [book.audit.record(refusal(request_id=str(number))) for number in range(9)]
    assert recorded == [True] * 5 + [False] * 4
    assert all(book.audit.record(entry()) for _ in range(50))
    assert len(await book.write()) == 55
    book.clock.advance(59.0)
    assert len(await book.write()) == 55
    book.clock.advance(1.0)
    *_, last = await book.write()
    assert last == {
        "time": "2023-11-14T22:14:20.000+00:00",
        "suppressed": 4,
        "since": "2023-11-14T22:13:20.000+00:00",
        "name": "anna@host",
        "method": "ReservationService/Reserve",
        "reason": "NOT_OWNER",
    }
    assert len(await book.write()) == 56
    assert book.audit.record(refusal())


async def test_the_end_does_not_wait_for_the_minute(book: Book) -> None:
    for _ in range(8):
        book.audit.record(refusal())
    await book.audit.close()
    assert book.lines()[-1]["suppressed"] == 3


# The settings.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path = 'audit.jsonl'", "audit.path: 'audit.jsonl' is not an absolute path"),
        ("max_bytes = '1KiB'", "audit.max_bytes: 1024 bytes are too few"),
        ("keep = 0", "audit.keep"),
        ("keeps = 3", "did you mean `keep`"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "gpud.toml"
    path.write_text(f"[audit]\n{text}\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(path, {})
    assert told in str(caught.value)


# The journal.


@pytest.mark.parametrize(
    "reason", ["IDENTITY_MISSING", "ROLE_MISSING", "NOT_OWNER", "ACCESS_WITHDRAWN"]
)
def test_who_lacks_a_right_is_an_event(reason: str) -> None:
    event = event_of(refusal(reason=reason, message="m" * 300))
    assert event is not None
    assert (event.type, event.subject, event.actor) == ("access.refused", "node", "anna@host")
    assert (event.wall, event.reason) == (1.7e9, "m" * 256)
    assert event.details == {"method": "ReservationService/Reserve", "origin": "operator.sock"}


def test_nobody_in_particular_is_not_gpud_itself() -> None:
    event = event_of(refusal(name="", reason="IDENTITY_MISSING"))
    assert event is not None
    assert event.actor == "unknown"


@pytest.mark.parametrize("made", [entry(), refusal(reason="VRAM_INSUFFICIENT")])
def test_all_else_is_none(made: AuditEntry) -> None:
    assert event_of(made) is None
