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
from gpud.instances.health.vital import Verdict
from gpud.instances.instance import InstanceState
from gpud.instances.measuring.beside import Beside, Use, proved
from gpud.instances.measuring.estimator import Estimator
from gpud.instances.measuring.telling import UNTOLD, Told
from gpud.instances.needs import promised_files
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
# Where only the devices tell, a server has shown all that it takes at rest after so long (or when
# it goes); what it takes beyond that later is learned when it is seen.
SETTLED_SECONDS: Final = 15.0
RISE_SHARE: Final = 0.01  # less is not worth a write
_LESS: Final = (Verdict.DEGRADED, Verdict.SLEEPING, Verdict.STUCK)
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Watched:
    """An instance whose use of its devices is still to be learned from."""

    key: str
    build: EngineBuild
    device: DeviceTraits
    footprint: Footprint
    told: Told
    beside: Beside
    since_boottime: float
    most_bytes: int = 0
    recorded_bytes: int | None = None
    beside_bytes: int | None = None  # what it taught of its process


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


def checked(life: Life, estimator: Estimator, seen: Inspection, told: Told) -> None:
    """A load came to its CHECK: its engine told its buffers, or did not.

    A projector's buffers are told in part only, so such a load teaches nothing.
    """
    watched = _watched(life, estimator, seen, told)
    if watched is None:
        return
    if told.engine_bytes is not None:
        _record(life, watched, told)
    if told.engine_bytes is None or watched.device.kind is not DeviceKind.SIMULATED:
        life.watched = watched


def resumed(life: Life, estimator: Estimator, seen: Inspection) -> None:
    """An adopted one serves: what its processes use is learned from as before.

    Which of its buffers it told is not known any more, only their sum: so on a card it teaches
    nothing but what it did not tell. Nor where its files are others now.
    """
    told = Told(engine_bytes=life.instance.engine_bytes)
    watched = _watched(life, estimator, seen, told)
    if watched is None or promised_files(seen) != life.instance.files:
        return
    if told.engine_bytes is None or watched.device.kind is DeviceKind.HOST:
        life.watched = watched


def _watched(life: Life, estimator: Estimator, seen: Inspection, told: Told) -> Watched | None:
    instance, sample = life.instance, _sample_of(life)
    if estimator.build is None or instance.footprint is None or sample is None:
        return None
    device = DeviceTraits(kind=sample.info.kind, model_name=sample.info.model_name)
    if seen.projector is not None:
        return None
    return Watched(
        key=estimator.key(seen, instance.options, device),
        build=estimator.build,
        device=device,
        footprint=instance.footprint,
        told=told,
        beside=estimator.beside(seen, instance.options, device),
        since_boottime=life.house.clock.now().boottime,
    )


async def watch(house: House, lives: Mapping[str, Life]) -> None:
    """Learn from what the processes of READY instances use, as the snapshots show it."""
    async for _, snapshot in house.snapshots.follow():
        for life in tuple(lives.values()):
            if life.watched is not None:
                _look_safely(life, life.watched, snapshot)


def _look_safely(life: Life, watched: Watched, snapshot: Snapshot) -> None:
    """A mistake here costs a measurement, never the daemon."""
    try:
        if life.instance.state is InstanceState.READY:
            _look(life, watched, snapshot)
        elif watched.most_bytes:
            _leave(life, watched)
        elif life.instance.ended:
            life.watched = None
    except Exception:
        log.exception("measuring.bug", instance=life.instance.name)
        life.watched = None


def _look(life: Life, watched: Watched, snapshot: Snapshot) -> None:
    used = _used_bytes(life, snapshot, watched.since_boottime)
    if used is None or _is_not_itself(life) or used <= 0:
        return
    watched.most_bytes, before = max(used, watched.most_bytes), watched.most_bytes
    if watched.told.engine_bytes is not None:
        if watched.most_bytes > before * (1 + RISE_SHARE):
            _learn_overhead(life, watched, watched.told.engine_bytes)
        return
    known = watched.recorded_bytes
    settled = snapshot.boottime - watched.since_boottime >= SETTLED_SECONDS
    expected = expected_bytes(watched.footprint, is_whole=True)
    if known is None:
        worth_it = settled or watched.most_bytes > expected
    else:
        worth_it = watched.most_bytes > known * (1 + RISE_SHARE)
    if worth_it:
        watched.recorded_bytes = watched.most_bytes
        _record(life, watched, UNTOLD)


def _leave(life: Life, watched: Watched) -> None:
    """It serves no more: the most that it was seen to take is known now."""
    life.watched = None
    if watched.told.engine_bytes is None and watched.recorded_bytes is None:
        _record(life, watched, UNTOLD)


def _is_not_itself(life: Life) -> bool:
    """One that sleeps, or does not run where it should, takes less than it will."""
    signs = life.signs
    return life.instance.sleep is not None or (signs is not None and signs.verdict in _LESS)


def _learn_overhead(life: Life, watched: Watched, engine_bytes: int) -> None:
    """What the processes take beside the engine's buffers, and beside what is this model's own.

    A driver tells it exactly, unless the engine told its buffers in part, or of one device only.
    It is learned anew whenever more is seen: a process grows as it is used.
    """
    devices, learned = len(life.instance.devices), life.house.learned
    key = process_key(watched.build, watched.device, devices)
    is_touched, covered = watched.device.kind is DeviceKind.HOST, watched.told.covered
    use = Use(
        used_bytes=watched.most_bytes,
        buffer_bytes=engine_bytes + (0 if covered is None else _untold_bytes(watched)),
        is_exact=not is_touched and covered is None and devices == 1,
        is_touched=is_touched,
    )
    found, before = proved(use, watched.beside, learned.process_bytes(key)), watched.beside_bytes
    if found is None or found <= (before or 0):
        return
    watched.beside_bytes = found
    kept = learned.observe(key, found, life.house.clock.now().wall, before)
    life.house.promises.post(Change(), (_row(PROCESSES, key, kept), *_forgotten(learned)))


def _untold_bytes(watched: Watched) -> int:
    """Of the buffers, what is expected of those that the engine did not tell.

    What it told beyond whole items is of them.
    """
    told = watched.told
    assert told.covered is not None  # noqa: S101 — for the type checker
    covers, footprint = told.covered.what, watched.footprint
    known = expected_bytes(footprint, is_whole=False, covers=covers)
    rest = expected_bytes(footprint, is_whole=False) - known
    return max(0, rest - ((told.engine_bytes or 0) - told.covered.bytes))


def _record(life: Life, watched: Watched, told: Told) -> None:
    """Keep a measurement, and make it durable; a drift is told."""
    learned, is_whole = life.house.learned, told.engine_bytes is None
    covers: frozenset[FootprintWhat] = frozenset()
    measured = watched.most_bytes if told.engine_bytes is None else told.engine_bytes
    if told.covered is not None:
        covers, measured = told.covered.what, told.covered.bytes
    measurement = Measurement(
        model=life.instance.model,
        measured_bytes=measured,
        estimated_bytes=expected_bytes(watched.footprint, is_whole=is_whole, covers=covers),
        is_whole=is_whole,
        wall=life.house.clock.now().wall,
        covers=covers,
    )
    drift = learned.record(watched.key, measurement)
    rows = (_row(LOADS, watched.key, learned.load(watched.key)), *_forgotten(learned))
    events = (_drift_event(life, drift),) if drift else ()
    # Not with the instance's own record, which may be gone by now.
    life.house.promises.post(Change(events=events), rows)


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
