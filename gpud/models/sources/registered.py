"""Models that are registered while the daemon runs: durable, then in the catalogue."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from gpud.clock import Clock
from gpud.errors import GpudError, ModelNotFound, OptionInvalid, QuotaExceeded, WrongState
from gpud.events import Event
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from gpud.models.sources.entry import Places, Said, with_source
from gpud.models.sources.rules import stem_of, words_of
from gpud.store import Committed, Row

log = structlog.get_logger()

ROW_KIND: Final = "model"
MAX_REGISTERED: Final = 1024
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

# Makes an event and rows durable together; the call comes once they are.
Commit = Callable[
    [tuple[Event, ...], tuple[Row, ...], Callable[[], None]], "asyncio.Future[Committed]"
]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it is stored: what was said of it, so that other places may hold later."""

    id: str
    engine: EngineKind
    kind: ModelKind | None
    said: Said
    options: ModelOptions
    owner: str
    create_wall: float
    profile: str = ""
    labels: dict[str, str] = {}

    def model(self, places: Places) -> Model:
        """The catalogue's entry. Raises OptionInvalid where the rules have changed since."""
        if self.profile and self.profile not in places.profiles:
            known = ", ".join(sorted(places.profiles)) or "none"
            raise OptionInvalid(
                field="profile", problem=f"there is no profile {self.profile!r}; there are {known}"
            )
        below = places.profiles.get(self.profile, ModelOptions())
        whole = replace(self.bare(), options=self.options.over(below))
        return with_source(whole, self.said, places)

    def bare(self) -> Model:
        """The entry without what the configuration adds to it: it cannot be loaded so."""
        return Model(
            id=self.id,
            engine=self.engine,
            kind=self.kind,
            path=self.said.path,
            options=self.options,
            profile=self.profile,
            owner=self.owner,
            labels=tuple(sorted(self.labels.items())),
        )


class Registry:
    """The registered entries.

    What it adds is there once it is durable; what it removes is not loaded any more from the
    moment of the decision.
    """

    def __init__(self, catalogue: Catalogue, commit: Commit, clock: Clock, places: Places) -> None:
        """`catalogue` shows them; one of the configuration hides one of its name."""
        self._catalogue = catalogue
        self._commit = commit
        self._clock = clock
        self.places = places
        self._entries: dict[str, Registered] = {}
        self._coming: set[str] = set()

    def restore(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """What an earlier life of the daemon registered. What makes no sense is left out, told."""
        for id_, body in rows:
            try:
                entry = msgspec.json.decode(body, type=Registered)
            except (msgspec.MsgspecError, ValueError) as error:
                log.warning("models.unusable", model=f"models/{id_}", problem=str(error))
                continue
            self._entries[id_] = entry
            self._show(entry)

    def configure(self, places: Places) -> None:
        """The configuration has changed: what entries refer to may be elsewhere, or gone."""
        self.places = places
        for entry in self._entries.values():
            self._show(entry)

    def _show(self, entry: Registered) -> None:
        """Put it into the catalogue, as far as the configuration allows it still."""
        try:
            self._catalogue.register(entry.model(self.places))
        except GpudError as error:
            log.warning("models.unusable", model=f"models/{entry.id}", problem=str(error))
            self._catalogue.unregister(entry.id)
        if self._catalogue.configured(entry.id) is not None:
            log.warning("models.hidden", model=f"models/{entry.id}", owner=entry.owner)

    def wants(self, stem: str) -> bool:
        """Whether an entry, of the configuration too, is of the downloads of that stem."""
        return any(
            each.source is not None and stem_of(each.source) == stem
            for each in self._catalogue.entries()
        )

    def create_wall(self, id_: str) -> float | None:
        """When it was registered; None: it was not."""
        entry = self._entries.get(id_)
        return entry.create_wall if entry is not None else None

    def check_name(self, id_: str, reserved: frozenset[str], owner: str) -> None:
        """Whether an entry of that name may be added.

        Raises OptionInvalid, WrongState, QuotaExceeded.
        """
        if not NAME.fullmatch(id_) or id_ in reserved:
            raise OptionInvalid(
                field="name",
                problem=f"{id_!r} is no model's name: up to 63 lower-case letters, digits, '.', "
                f"'_' and '-', and none of {', '.join(sorted(reserved))}",
            )
        if self._catalogue.configured(id_) is not None:
            raise WrongState(
                name=f"models/{id_}",
                state="an entry of the configuration",
                advice="take another name, or change the configuration",
            )
        there = self._entries.get(id_)
        if there is not None or id_ in self._coming:
            by = f" by {there.owner}" if there is not None else ""
            raise WrongState(
                name=f"models/{id_}",
                state=f"registered already{by}",
                advice=f"delete it first (`gpuctl models delete {id_}`), or take another name",
            )
        held = len(self._entries) + len(self._coming)
        if held >= MAX_REGISTERED:
            raise QuotaExceeded(
                owner=owner,
                limit_name="the number of registered models",
                limit=MAX_REGISTERED,
                held=held,
                asked=1,
                unit="models",
                advice="delete some (`gpuctl models delete NAME`)",
            )

    async def add(self, entry: Registered, rows: tuple[Row, ...]) -> Model:
        """Register it, together with rows of the same decision; answered once durable.

        Raises StoreReadOnly.
        """
        model = entry.model(self.places)
        row = Row(kind=ROW_KIND, id=entry.id, body=msgspec.json.encode(entry))
        self._coming.add(entry.id)

        def durable() -> None:
            self._entries[entry.id] = entry
            self._catalogue.register(model)

        event = self._event("model.registered", model, entry.owner)
        done = self._commit((event,), (row, *rows), durable)
        done.add_done_callback(lambda _: self._coming.discard(entry.id))
        await asyncio.shield(done)
        return model

    async def remove(self, id_: str, actor: str, rows: tuple[Row, ...]) -> Model:
        """Forget it; answered once durable. Raises ModelNotFound, WrongState, StoreReadOnly."""
        model, entry = self.check_removable(id_), self._entries.pop(id_)
        self._catalogue.unregister(id_)

        def settle(done: asyncio.Future[Committed]) -> None:
            if done.cancelled() or done.exception() is not None:
                self._entries[id_] = entry
                self._show(entry)

        row = Row(kind=ROW_KIND, id=id_, body=None)
        event = self._event("model.deleted", model, actor)
        done = self._commit((event,), (row, *rows), lambda: None)
        done.add_done_callback(settle)
        await asyncio.shield(done)
        return model

    def check_removable(self, id_: str) -> Model:
        """The registered entry. Raises ModelNotFound, WrongState for one of the configuration."""
        entry = self._entries.get(id_)
        if entry is not None:  # also one that the configuration does not allow any more
            return self._catalogue.registered(id_) or entry.bare()
        if self._catalogue.configured(id_) is None:
            raise ModelNotFound(name=f"models/{id_}")
        raise WrongState(
            name=f"models/{id_}",
            state="an entry of the configuration",
            advice=f"take [models.{id_}] out of its file",
        )

    def _event(self, type_: str, model: Model, actor: str) -> Event:
        details = {"engine": model.engine.value, "owner": model.owner}
        details["source"] = words_of(model.source) if model.source is not None else model.path
        return Event(
            wall=self._clock.now().wall,
            type=type_,
            subject=model.name,
            actor=actor,
            details=details,
        )
