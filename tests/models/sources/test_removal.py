"""What was downloaded is removed with its entry, whatever comes in between."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, HttpSource, HubSource, Model, ModelOptions, Source
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.entry import Places
from gpud.models.sources.fetching import ROW_KIND, Fetching
from gpud.models.sources.jobs import Jobs
from gpud.models.sources.rules import folder_of, place_of, stem_of
from gpud.models.sources.supplies import Keeping, Supplies
from gpud.store import Committed, Row, Write
from tests.models.sources.downloading import terms
from tests.models.sources.origin import WAIT_SECONDS, Origin, serving

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
    due = Desk(tmp_path / "old").fetching.due(source, removed=False)
    assert due.body is not None
    later = Desk(tmp_path / "another")  # the configuration was changed meanwhile
    later.fetching.restore([(due.id, due.body), ("../old", due.body), ("hub/bad", b"{")])
    await later.fetching.sweep(nobody)
    assert left(tmp_path) == []
    assert (tmp_path / "old").exists()  # what is not named as ours are is never looked at
    assert Row(kind=ROW_KIND, id=due.id, body=None) in later.rows
    assert later.fetching.due(source, removed=True).body is None


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
    due = [supplies.fetching.due(each, removed=False) for each in (FILE, REPOSITORY)]
    stored = [(row.id, row.body) for row in due if row.body is not None]
    supplies.restore(lambda kind: stored if kind == ROW_KIND else [])
    await supplies.sweep()
    assert {str(Path(name).parent) for name in left(tmp_path)} == {f"{folder_of(REPOSITORY)}/big"}
    assert [(row.id, row.body) for row in rows] == [(row.id, None) for row in due]


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
