"""What was downloaded is removed with its entry, whatever comes in between."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
import structlog

from gpud.clock import SystemClock
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, HttpSource, HubSource, Model, ModelOptions, Source
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.entry import Places
from gpud.models.sources.fetching import ROW_KIND, Fetching
from gpud.models.sources.hub import MANIFEST, Manifest, Taken, is_whole
from gpud.models.sources.jobs import Jobs
from gpud.models.sources.refusals import DownloadRefused
from gpud.models.sources.remains import BEGUN_ROW, Begun
from gpud.models.sources.rules import folder_of, place_of, stem_of
from gpud.models.sources.supplies import Keeping, Supplies
from gpud.models.sources.transfer.part import open_part
from gpud.store import Committed, Row, Write
from tests.models.sources.downloading import terms
from tests.models.sources.origin import WAIT_SECONDS, Origin, serving, status

FILE = HttpSource(url="https://example.com/a.gguf", sha256="ab" * 32)
REPOSITORY = HubSource(repository="org/tiny", file="big/a.gguf")


class Desk:
    """Downloads in a folder; `rows` are durable at once, and may be read by a later one."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self.rows: list[Row] = []
        sums = Checksums(Jobs(clock, 1), lambda rows: None, lambda: 0.0)
        # Nobody waits for a turn to remove something.
        jobs = Jobs(clock, 1, wait_seconds=WAIT_SECONDS)
        self.fetching = Fetching(folder, terms(), jobs, sums, self.rows.extend)


def put(folder: Path, source: Source) -> int:
    """All that may lie there of it; its bytes."""
    place = folder / place_of(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    names = [place, place.with_name(place.name + ".part")]
    for name in (*names, place.with_name(place.name + ".part.json")):
        name.write_bytes(b"12345")
    return 15


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def entry(source: Source) -> Model:
    return Model(
        id="m", engine=EngineKind.LLAMA_CPP, kind=None, path="x", options=ModelOptions(),
        source=source,
    )  # fmt: skip


def nobody(_: str) -> bool:
    return False


@pytest.mark.parametrize("source", [FILE, REPOSITORY])
async def test_all_of_it_goes_and_nothing_else(tmp_path: Path, source: Source) -> None:
    desk, size = Desk(tmp_path), put(tmp_path, source)
    (tmp_path / "hub" / "mine").mkdir(parents=True)
    (tmp_path / "hub" / "mine" / "a").touch()
    (tmp_path / f"{stem_of(source).replace('/', '-')}.mine").touch()
    kept = {"hub/mine/a", f"{stem_of(source).replace('/', '-')}.mine"}
    assert await desk.fetching.remove(source, lambda stem: stem == stem_of(source)) == 0
    assert len(left(tmp_path)) == len(kept) + 3
    assert await desk.fetching.remove(source, nobody) == size
    assert set(left(tmp_path)) == kept
    assert desk.rows[-1] == Row(kind=ROW_KIND, id=stem_of(source), body=None)


@pytest.mark.parametrize("source", [FILE, REPOSITORY])
async def test_what_was_to_be_removed_is_when_the_next_life_begins(
    tmp_path: Path, source: Source
) -> None:
    """The entry is gone, the daemon was killed, its files are here."""
    put(tmp_path / "old", source)
    (due,) = Desk(tmp_path / "old").fetching.due(source, removed=False)
    assert due.body is not None
    later = Desk(tmp_path / "another")  # the configuration was changed meanwhile
    later.fetching.restore([(due.id, due.body), ("../old", due.body), ("hub/bad", b"{")])
    await later.fetching.sweep(nobody)
    assert left(tmp_path) == []
    assert (tmp_path / "old").exists()  # what is not named as ours are is never looked at
    assert Row(kind=ROW_KIND, id=due.id, body=None) in later.rows
    assert {row.body for row in later.fetching.due(source, removed=True)} == {None}


async def test_of_an_entry_that_came_since_it_stays(tmp_path: Path) -> None:
    """By the whole of the parts, as the daemon has them."""
    put(tmp_path, FILE)
    put(tmp_path, REPOSITORY)
    rows: list[Row] = []

    def commit(events: object, more: tuple[Row, ...], durable: object) -> object:
        rows.extend(more)
        done = asyncio.get_running_loop().create_future()
        done.set_result(Committed(write=Write(), sequences=()))
        return done

    supplies = Supplies(
        Catalogue({"m": entry(REPOSITORY)}, []),
        Places(download_dir=tmp_path),
        terms(),
        Keeping(commit=commit, is_writable=lambda: True),  # type: ignore[arg-type]
        SystemClock(),
    )
    due = [supplies.fetching.due(each, removed=False)[0] for each in (FILE, REPOSITORY)]
    stored = [(row.id, row.body) for row in due if row.body is not None]
    begun = HttpSource(url="https://example.com/b.gguf", sha256="cd" * 32)
    unfinished(tmp_path, begun)
    records = {ROW_KIND: stored, BEGUN_ROW: [begun_row(tmp_path, begun)]}
    supplies.restore(lambda kind: records.get(kind, []))
    await supplies.sweep()
    assert {str(Path(name).parent) for name in left(tmp_path)} == {f"{folder_of(REPOSITORY)}/big"}
    over = [(row.id, row.body) for row in rows if row.kind == ROW_KIND]
    assert over == [(row.id, None) for row in due]


async def test_a_load_that_comes_meanwhile_is_not_cut(tmp_path: Path) -> None:
    content = b"GGUF" * 1000
    with serving(Origin(content)) as origin:
        source = HttpSource(url=origin.url, sha256=origin.sha256)
        desk, model = Desk(tmp_path), entry(source)
        asked, may_remove = threading.Event(), threading.Event()

        def decides(_: str) -> bool:
            asked.set()
            assert may_remove.wait(WAIT_SECONDS)
            return False

        async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as tasks:
            await desk.fetching.fetch(model, lambda _: None)
            removing = tasks.create_task(desk.fetching.remove(source, decides))
            assert await asyncio.to_thread(asked.wait, WAIT_SECONDS)
            loading = tasks.create_task(desk.fetching.fetch(model, lambda _: None))
            await asyncio.sleep(0)
            assert not loading.done()
            may_remove.set()
        assert removing.result() == len(content)
        assert left(tmp_path) == [place_of(source)]
        assert len(origin.requests) == 2


# What was begun, and nobody asks for any more.


def unfinished(folder: Path, source: Source) -> None:
    """As a daemon leaves it that is killed while it downloads."""
    place = folder / place_of(source)
    put(folder, source)
    place.unlink()


def begun_row(folder: Path, source: Source) -> tuple[str, bytes]:
    row = Begun(directory=str(folder), stem=stem_of(source)).row()
    assert row.body is not None
    return row.id, row.body


async def test_a_download_is_noted_before_it_begins_and_until_it_is_whole(tmp_path: Path) -> None:
    with serving(Origin(b"GGUF" * 1000)) as origin:
        source = HttpSource(url=origin.url, sha256=origin.sha256)
        desk, model = Desk(tmp_path), entry(source)
        origin.always = status(404)
        with pytest.raises(DownloadRefused):
            await desk.fetching.fetch(model, lambda _: None)
        noted = Begun(directory=str(tmp_path), stem=stem_of(source)).row()
        assert desk.rows == [noted]
        origin.always = None
        await desk.fetching.fetch(model, lambda _: None)
        assert desk.rows == [noted, noted, Row(kind=BEGUN_ROW, id=noted.id, body=None)]
        await desk.fetching.fetch(model, lambda _: None)
        assert len(desk.rows) == 3  # it is here: nothing begins


@pytest.mark.parametrize("source", [FILE, REPOSITORY])
async def test_what_was_begun_goes_when_the_next_life_has_no_entry_of_it(
    tmp_path: Path, source: Source
) -> None:
    unfinished(tmp_path, source)
    # Of the same form, and none of ours: another gpud may bring it.
    other = HttpSource(url="https://example.com/b.gguf", sha256="cd" * 32)
    unfinished(tmp_path, other)
    theirs = {name for name in left(tmp_path) if "cd" * 32 in name}
    desk = Desk(tmp_path)
    desk.fetching.restore((), [begun_row(tmp_path, source), ("x", b"{")])
    await desk.fetching.sweep(lambda stem: stem == stem_of(source))
    assert len(left(tmp_path)) == 4
    assert desk.rows == []
    later = Desk(tmp_path)
    later.fetching.restore((), [begun_row(tmp_path, source)])
    await later.fetching.sweep(nobody)
    assert set(left(tmp_path)) == theirs
    assert later.rows == [Row(kind=BEGUN_ROW, id=begun_row(tmp_path, source)[0], body=None)]


async def test_in_a_folder_that_the_configuration_left_it_goes_too(tmp_path: Path) -> None:
    unfinished(tmp_path / "old", FILE)
    desk = Desk(tmp_path / "new")
    desk.fetching.restore((), [begun_row(tmp_path / "old", FILE)])
    await desk.fetching.sweep(lambda _: True)
    assert left(tmp_path) == []


async def test_what_is_whole_or_another_s_just_now_stays(tmp_path: Path) -> None:
    put(tmp_path, FILE)
    folder = tmp_path / folder_of(REPOSITORY)
    folder.mkdir(parents=True)
    (folder / "a.gguf").write_bytes(b"12345")
    taken = Taken(name="a.gguf", size_bytes=5, sha256="ab" * 32)
    manifest = Manifest(repository="org/tiny", commit="c", files=(taken,))
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    desk = Desk(tmp_path)
    rows = [begun_row(tmp_path, each) for each in (FILE, REPOSITORY)]
    desk.fetching.restore((), rows)
    with open_part(tmp_path / place_of(FILE)):
        await desk.fetching.sweep(nobody)
    assert (tmp_path / f"{place_of(FILE)}.part").exists()
    assert is_whole(folder)
    again = Desk(tmp_path)
    again.fetching.restore((), rows)
    await again.fetching.sweep(nobody)
    assert set(left(tmp_path)) == {
        place_of(FILE), f"{folder_of(REPOSITORY)}/a.gguf", f"{folder_of(REPOSITORY)}/{MANIFEST}"
    }  # fmt: skip


async def test_files_that_an_admin_kept_are_not_swept(tmp_path: Path) -> None:
    unfinished(tmp_path, FILE)
    kept = Desk(tmp_path).fetching.due(FILE, removed=True)
    assert Row(kind=BEGUN_ROW, id=begun_row(tmp_path, FILE)[0], body=None) in kept


async def test_what_no_entry_wants_any_more_is_told_of_and_stays(tmp_path: Path) -> None:
    wanted = HttpSource(url="https://example.com/b.gguf", sha256="cd" * 32)
    for source in (FILE, REPOSITORY, wanted):
        put(tmp_path, source)
    (tmp_path / "sha256-notes.gguf").write_bytes(b"an admin's own")
    before = left(tmp_path)
    with structlog.testing.capture_logs() as logs:
        await Desk(tmp_path).fetching.sweep(lambda stem: stem == stem_of(wanted))
    told = {each["files"]: each["bytes"] for each in logs if each["event"] == "models.unused"}
    assert told == {stem_of(FILE): 15, stem_of(REPOSITORY): 15}
    assert left(tmp_path) == before


async def test_where_nothing_was_downloaded_nothing_is_told(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await Desk(tmp_path / "none").fetching.sweep(nobody)
    assert logs == []
