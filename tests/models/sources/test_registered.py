"""Registered entries: durable before they are seen, and there again after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpud.errors import (
    GpudError,
    ModelNotFound,
    OptionInvalid,
    QuotaExceeded,
    StoreReadOnly,
    WrongState,
)
from gpud.events import Event
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelOptions
from gpud.models.sources import registered
from gpud.models.sources.entry import Places, Said
from gpud.models.sources.registered import Registered, Registry
from gpud.store import Committed, Row, Write
from tests.fakes.clock import FakeClock

PLACES = Places(download_dir=Path("/d"), profiles={"small": ModelOptions(parallel=7, batch=9)})
RESERVED = frozenset({"roots"})


class Desk:
    """A registry whose commits a test makes durable, or lets fail."""

    def __init__(self, *configured: str) -> None:
        models = {name: bare(name) for name in configured}
        self.catalogue = Catalogue(models, [])
        self.events: list[str] = []
        self.rows: list[Row] = []
        self.waiting: list[tuple[asyncio.Future[Committed], object]] = []
        self._asked = asyncio.Event()
        self.registry = Registry(self.catalogue, self._commit, FakeClock(), PLACES)

    def _commit(
        self, events: tuple[Event, ...], rows: tuple[Row, ...], durable: object
    ) -> asyncio.Future[Committed]:
        self.events += [each.type for each in events]
        self.rows += rows
        done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self.waiting.append((done, durable))
        self._asked.set()
        return done

    async def asked(self) -> None:
        """Until a commit waits."""
        await self._asked.wait()

    def settle(self, error: GpudError | None = None) -> None:
        for done, durable in self.waiting:
            if error is not None:
                done.set_exception(error)
            else:
                durable()  # type: ignore[operator]
                done.set_result(Committed(write=Write(), sequences=()))
        self.waiting.clear()
        self._asked.clear()

    async def add(self, entry: Registered) -> Model:
        async with asyncio.TaskGroup() as tasks:
            adding = tasks.create_task(self.registry.add(entry, ()))
            await self.asked()
            self.settle()
        return adding.result()


def bare(name: str) -> Model:
    return Model(
        id=name, engine=EngineKind.LLAMA_CPP, kind=None, path="x.gguf", options=ModelOptions()
    )


def entry(name: str = "new", profile: str = "", owner: str = "anna", **said: str) -> Registered:
    return Registered(
        id=name,
        engine=EngineKind.LLAMA_CPP,
        kind=None,
        said=Said(**(said or {"path": "new.gguf"})),
        options=ModelOptions(parallel=2),
        owner=owner,
        create_wall=5.0,
        profile=profile,
    )


async def test_it_is_seen_once_it_is_durable() -> None:
    desk = Desk()
    adding = asyncio.ensure_future(desk.registry.add(entry(), ()))
    await desk.asked()
    with pytest.raises(ModelNotFound):
        desk.catalogue.get("new")
    with pytest.raises(WrongState, match="registered already"):  # nor may another come meanwhile
        desk.registry.check_name("new", RESERVED, "bert")
    desk.settle()
    await adding
    assert desk.catalogue.get("new").owner == "anna"
    assert desk.registry.create_wall("new") == 5.0
    assert desk.events == ["model.registered"]


async def test_what_cannot_be_written_is_not_there() -> None:
    desk = Desk()
    adding = asyncio.ensure_future(desk.registry.add(entry(), ()))
    await desk.asked()
    desk.settle(StoreReadOnly(cause="full"))
    with pytest.raises(StoreReadOnly):
        await adding
    with pytest.raises(ModelNotFound):
        desk.catalogue.get("new")
    desk.registry.check_name("new", RESERVED, "bert")


async def test_what_is_deleted_is_loaded_no_more_and_is_back_where_that_fails() -> None:
    desk = Desk()
    await desk.add(entry())
    removing = asyncio.ensure_future(desk.registry.remove("new", "anna", ()))
    await desk.asked()
    with pytest.raises(ModelNotFound):
        desk.catalogue.get("new")
    desk.settle(StoreReadOnly(cause="full"))
    with pytest.raises(StoreReadOnly):
        await removing
    await asyncio.sleep(0)
    assert desk.catalogue.get("new").owner == "anna"
    assert desk.registry.create_wall("new") == 5.0


async def test_it_is_there_again_after_a_restart() -> None:
    desk, sum_ = Desk(), "ab" * 32
    await desk.add(entry("far", url="https://a/b?c", sha256=sum_, mmproj="eye.gguf"))
    await desk.add(entry("small", profile="small"))
    rows = [(row.id, row.body or b"") for row in desk.rows]
    again = Desk("small")
    again.registry.restore([*rows, ("broken", b"{"), ("other", b"[1]")])
    assert again.catalogue.get("far") == desk.catalogue.get("far")
    assert again.catalogue.get("far").path == f"/d/sha256-{sum_}.gguf"
    options = ModelOptions(parallel=2, batch=9)
    assert desk.catalogue.get("small").options == options
    # One of the configuration goes before it.
    assert again.catalogue.get("small").owner == ""
    hidden = again.catalogue.registered("small")
    assert hidden is not None
    assert hidden.options == options


async def test_a_configuration_that_changes_is_followed() -> None:
    desk = Desk()
    await desk.add(entry("small", profile="small"))
    elsewhere = Places(download_dir=Path("/e"))
    desk.registry.configure(elsewhere)
    with pytest.raises(ModelNotFound):  # its profile is gone, and not it
        desk.catalogue.get("small")
    with pytest.raises(WrongState, match="registered already by anna"):
        desk.registry.check_name("small", RESERVED, "bert")
    assert desk.registry.check_removable("small").owner == "anna"
    desk.registry.configure(PLACES)
    assert desk.catalogue.get("small").options.batch == 9


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "-a", ".a", "a/b", "../a", "a" * 64, "ü", "roots", "a\n"]
)
def test_names_that_no_model_has(name: str) -> None:
    with pytest.raises(OptionInvalid):
        Desk().registry.check_name(name, RESERVED, "anna")


async def test_only_so_many_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "MAX_REGISTERED", 1)
    desk = Desk()
    await desk.add(entry())
    with pytest.raises(QuotaExceeded, match="gpuctl models delete"):
        desk.registry.check_name("more", RESERVED, "anna")


def test_an_entry_of_the_configuration_is_not_deleted() -> None:
    desk = Desk("fixed")
    with pytest.raises(WrongState, match=r"\[models\.fixed\]"):
        desk.registry.check_removable("fixed")
    with pytest.raises(ModelNotFound):
        desk.registry.check_removable("none")
