"""Keeps what loads were seen to take: by the engine at CHECK, by the devices once READY."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from gpud.devices.snapshot import DeviceKind, Sample, Snapshot
from gpud.errors import EngineMissing
from gpud.events import Event
from gpud.instances.instance import InstanceState
from gpud.instances.measuring.estimator import Estimator
from gpud.ledger.change import Change
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.learned import (
    Drift,
    EngineBuild,
    Learned,
    Measurement,
    Overhead,
    expected_bytes,
    process_key,
)
from gpud.models.model import Footprint, FootprintWhat, Model
from gpud.store import Row, SqliteStore

if TYPE_CHECKING:
    from gpud.instances.life import House, Life

log = structlog.get_logger()

LOADS, PROCESSES = "measured_load", "measured_process"  # kinds of rows
# Where only the devices tell, a server has shown all that it takes at rest after so long; what it
# takes beyond that later is learned when it is seen.
SETTLED_SECONDS: Final = 60.0
RISE_SHARE: Final = 0.01  # less is not worth a write
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Watched:
    """An instance whose use of its devices is still to be learned from."""

    key: str
    build: EngineBuild
    device: DeviceTraits
    footprint: Footprint
    engine_bytes: int | None  # None: the engine did not tell, so all of its processes count
    since_boottime: float
    most_bytes: int = 0
    recorded_bytes: int | None = None


async def estimator_of(house: House, model: Model) -> Estimator:
    """The estimates for a model's loads; without what was learned where its engine is missing."""
    engine, build = house.engines[model.engine], None
    with suppress(EngineMissing):
        program = await engine.program()
        build = EngineBuild(kind=program.kind, version=program.version, arguments=model.extra_args)
    return Estimator(engine=engine, learned=house.learned, build=build)


def restore(learned: Learned, store: SqliteStore) -> None:
    """Take up what earlier lives of the daemon had learned; what makes no sense is left out."""
    learned.restore(_read(store, LOADS, Measurement), _read(store, PROCESSES, Overhead))


def checked(life: Life, estimator: Estimator, seen: Inspection, engine_bytes: int | None) -> None:
    """A load came to its CHECK: its engine told its buffers, or did not (None).

    A projector's buffers are told in part only, so such a load teaches nothing.
    """
    instance, sample = life.instance, _sample_of(life)
    if estimator.build is None or instance.footprint is None or sample is None:
        return
    device = DeviceTraits(kind=sample.info.kind, model_name=sample.info.model_name)
    if seen.projector is not None:
        return
    watched = Watched(
        key=estimator.key(seen, instance.options, device),
        build=estimator.build,
        device=device,
        footprint=instance.footprint,
        engine_bytes=engine_bytes,
        since_boottime=life.house.clock.now().boottime,
    )
    if engine_bytes is not None:
        _record(life, watched, engine_bytes, is_whole=False)
    if engine_bytes is None or sample.info.kind is not DeviceKind.SIMULATED:
        life.watched = watched


async def watch(house: House, lives: Mapping[str, Life]) -> None:
    """Learn from what the processes of READY instances use, as the snapshots show it."""
    async for _, snapshot in house.snapshots.follow():
        for life in tuple(lives.values()):
            if life.watched is not None:
                if life.instance.ended:
                    life.watched = None
                elif life.instance.state is InstanceState.READY:
                    _look_safely(life, life.watched, snapshot)


def _look_safely(life: Life, watched: Watched, snapshot: Snapshot) -> None:
    """A mistake here costs a measurement, never the daemon."""
    try:
        _look(life, watched, snapshot)
    except Exception:
        log.exception("measuring.bug", instance=life.instance.name)
        life.watched = None


def _look(life: Life, watched: Watched, snapshot: Snapshot) -> None:
    used = _used_bytes(life, snapshot, watched.since_boottime)
    if used is None:
        return
    if watched.engine_bytes is not None:
        life.watched = None
        _learn_overhead(life, watched, used - watched.engine_bytes)
        return
    known = watched.recorded_bytes
    watched.most_bytes = max(used, watched.most_bytes)
    settled = snapshot.boottime - watched.since_boottime >= SETTLED_SECONDS
    expected = expected_bytes(watched.footprint, is_whole=True)
    if known is None:
        worth_it = settled or watched.most_bytes > expected
    else:
        worth_it = watched.most_bytes > known * (1 + RISE_SHARE)
    if worth_it:
        watched.recorded_bytes = watched.most_bytes
        _record(life, watched, watched.most_bytes, is_whole=True)


def _learn_overhead(life: Life, watched: Watched, beside: int) -> None:
    """What the processes take beside the engine's buffers.

    A driver tells it exactly. Of the host's memory only pages that were touched are seen, so it
    counts where it is more than was expected.
    """
    items = watched.footprint.items
    expected = sum(item.bytes for item in items if item.what is FootprintWhat.CONTEXT)
    if beside <= 0 or len(life.instance.devices) > 1:  # the engine's word is of the dearest alone
        return
    if watched.device.kind is DeviceKind.HOST and beside <= expected:
        return
    key, learned = process_key(watched.build, watched.device), life.house.learned
    found = learned.observe(key, beside, life.house.clock.now().wall)
    life.house.promises.post(Change(), (_row(PROCESSES, key, found), *_forgotten(learned)))


def _record(life: Life, watched: Watched, measured: int, *, is_whole: bool) -> None:
    """Keep a measurement, durable with the record; a drift is told."""
    learned = life.house.learned
    told = Measurement(
        model=life.instance.model,
        measured_bytes=measured,
        estimated_bytes=expected_bytes(watched.footprint, is_whole=is_whole),
        is_whole=is_whole,
        wall=life.house.clock.now().wall,
    )
    drift = learned.record(watched.key, told)
    rows = (_row(LOADS, watched.key, learned.load(watched.key)), *_forgotten(learned))
    _ = life.commit_with(rows, Change(), _drift_event(life, drift) if drift else None)


def _drift_event(life: Life, drift: Drift) -> Event:
    return life.event(
        "footprint.drift",
        drift.reason,
        measured_bytes=str(drift.measured_bytes),
        former_bytes=str(drift.former_bytes),
    )


def _used_bytes(life: Life, snapshot: Snapshot, since: float) -> int | None:
    """The most that its processes use on one of its devices; None: no list since then tells."""
    most = None
    for sample in snapshot.samples:
        if sample.info.uuid in life.instance.devices:
            if sample.listed_boottime is None or sample.listed_boottime <= since:
                return None
            own = [p for p in sample.processes or () if p.claim == life.instance.reservation]
            sizes = [process.used_bytes for process in own if process.used_bytes is not None]
            if not own or len(sizes) < len(own):
                return None
            most = max(most or 0, sum(sizes))
    return most


def _sample_of(life: Life) -> Sample | None:
    snapshot = life.house.snapshots.latest
    samples: Iterable[Sample] = snapshot.samples if snapshot is not None else ()
    return next((each for each in samples if each.info.uuid in life.instance.devices), None)


def _forgotten(learned: Learned) -> tuple[Row, ...]:
    loads, processes = learned.forget()
    gone = [(LOADS, key) for key in loads] + [(PROCESSES, key) for key in processes]
    return tuple(Row(kind=kind, id=key, body=None) for kind, key in gone)


def _row(kind: str, key: str, value: object) -> Row:
    return Row(kind=kind, id=key, body=msgspec.json.encode(value))


def _read(store: SqliteStore, kind: str, type_: type[T]) -> dict[str, T]:
    """The records of a kind, the oldest first: they are worth a warning, never a refusal."""
    found: dict[str, T] = {}
    try:
        rows = store.read_rows(kind)
    except sqlite3.Error as error:
        log.warning("store.unreadable", kind=kind, problem=str(error))
        return found
    for id_, body in rows:
        try:
            found[id_] = msgspec.json.decode(body, type=type_)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            log.warning("store.unreadable", kind=kind, id=id_, problem=str(error))
    return dict(sorted(found.items(), key=lambda each: getattr(each[1], "wall", 0.0)))
