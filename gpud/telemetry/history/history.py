"""What was: every reading of devices, the host and engines, in a ring and on disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpud.devices.snapshot import Sample, Snapshot
from gpud.errors import WrongState
from gpud.ledger.charge import Charge
from gpud.settings import History as Settings
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.history.asking import (
    Answer,
    Asked,
    Series,
    check,
    series_of,
    step_of,
    steps_for,
)
from gpud.telemetry.history.blocks import COARSE, FINE, MIDDLE, SPANS, Block, Row
from gpud.telemetry.history.file import Contents, HistoryFile, HistoryUnwritable, Keep
from gpud.telemetry.history.keeper import Batch, Keeper
from gpud.telemetry.history.ring import Packed, Ring
from gpud.telemetry.history.rows import (
    DEVICE_NUMBERS,
    ENGINE_NUMBERS,
    HOST_NUMBERS,
    device_row,
    engine_row,
    host_row,
    model_rows,
    rests,
)

FILE: Final = "history.db"
HOST: Final = "host"
# Snapshots that are taken in at once: a second apart each would find the processor's caches
# cold, and cost several times as much.
_AT_ONCE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """What the ring has of a subject."""

    packed: Sequence[tuple[int, bytes]]
    unpacked: Block | None


@dataclass(slots=True)
class _Shown:
    """The newest row of a device, and what it was made of: at rest that is the same for hours."""

    name: str
    sample: Sample | None = None
    charge: Charge | None = None
    row: Row = ()

    def takes(self, sample: Sample, charge: Charge | None) -> bool:
        """Bring the row up to date, unless the sample is no newer than the one before."""
        before = self.sample
        if before is None or sample.boottime > before.boottime:
            if before is None or charge is not self.charge or not rests(before, sample):
                self.row = device_row(sample, charge)
            self.sample, self.charge = sample, charge
            return True
        return False


class History:
    """Keeps what is seen, and tells it. Belongs to the loop.

    `see` and `see_engines` take a few µs for each subject and never block; what they keep is
    packed every half minute, and coarser steps are made in a thread. What a SIGKILL takes is that
    half minute. With history.on = false nothing is kept.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        keep_free_bytes: int,
        tell: Callable[[str, str], None],
    ) -> None:
        """`directory` is the state directory; `tell` takes a type of event and its reason."""
        self.is_on = settings.on
        self._ring = Ring(float(settings.seconds))
        self._tell = tell
        self._waiting: list[tuple[Snapshot, Mapping[str, Charge]]] = []  # to be taken in
        self._aliases: dict[str, str] = {}
        self._shown: dict[str, _Shown] = {}  # by UUID
        self._read: dict[str, float] = {}  # boottime of the newest reading, by instance's name
        spans = {
            FINE: float(settings.seconds),
            MIDDLE: float(settings.ten_seconds),
            COARSE: float(settings.minutes),
        }
        keep = Keep(
            spans=spans, max_bytes=int(settings.max_bytes), keep_free_bytes=keep_free_bytes
        )
        file = HistoryFile(directory / FILE, keep, lambda folder: shutil.disk_usage(folder).free)
        waiting = max(1, int(settings.seconds) // SPANS[FINE])
        self._keeper = Keeper(file, waiting, self._changed)

    def start(self) -> None:
        """Begin to write down, on the running loop."""
        if self.is_on:
            self._keeper.start()

    def close(self) -> None:
        """Write down what is left; nothing is seen any more."""
        if self.is_on:
            self._take_in()
            self._hand_over(self._ring.newest, self._ring.close())
            self._keeper.close()

    # Seeing.

    def see(self, snapshot: Snapshot, charges: Mapping[str, Charge]) -> None:
        """Keep what devices and the host show; what is no newer than before is not kept again.

        `charges`, by UUID, are not changed any more.
        """
        if not self.is_on:
            return
        self._waiting.append((snapshot, charges))
        if len(self._waiting) >= _AT_ONCE or self._ring.is_over(snapshot.wall):
            self._take_in()

    def _take_in(self) -> None:
        """Bring the ring up to date."""
        waiting, self._waiting = self._waiting, []
        for snapshot, charges in waiting:
            self._keep(snapshot, charges)

    def _keep(self, snapshot: Snapshot, charges: Mapping[str, Charge]) -> None:
        time = self._turn(snapshot.wall)
        for sample in snapshot.samples:
            uuid = sample.info.uuid
            shown = self._shown.get(uuid)
            if shown is None:
                shown = self._shown[uuid] = _Shown(f"devices/{uuid}")
            if shown.takes(sample, charges.get(uuid)):
                self._aliases[shown.name] = sample.info.alias
                self._ring.put(shown.name, DEVICE_NUMBERS, time, shown.row)
        self._ring.put(HOST, HOST_NUMBERS, time, host_row(snapshot.host))

    def see_engines(self, readings: Iterable[EngineReading], wall: float) -> None:
        """Keep what engines tell of themselves, each by its instance and with others by model."""
        if not self.is_on:
            return
        self._take_in()
        fresh = [
            each
            for each in readings
            if not each.problem and self._is_new(f"instances/{each.instance}", each.boottime)
        ]
        time = self._turn(wall)
        for each in fresh:
            self._ring.put(f"instances/{each.instance}", ENGINE_NUMBERS, time, engine_row(each))
        for model, row in model_rows(fresh).items():
            self._ring.put(f"models/{model}", ENGINE_NUMBERS, time, row)

    def _turn(self, wall: float) -> int:
        time, closed = self._ring.turn(wall)
        self._hand_over(wall, closed)
        return time

    def _is_new(self, key: str, boottime: float) -> bool:
        is_new = boottime > self._read.get(key, -1.0)
        if is_new:
            self._read[key] = boottime
        return is_new

    def _hand_over(self, wall: float, closed: Sequence[Packed]) -> None:
        if closed:
            self._keeper.keep(Batch(wall=wall, blocks=closed, aliases=dict(self._aliases)))
            seen = self._ring.subjects()
            for name in self._aliases.keys() - seen:
                del self._aliases[name]
            # Not so with devices: of one that is gone the last reading is shown on and on.
            for name in self._read.keys() - seen:
                del self._read[name]

    def _changed(self, cause: str, aside: str) -> None:
        if aside:
            self._tell("history.unreadable", f"it could not be read and lies now at {aside}")
        if cause:
            self._tell("history.paused", f"it is kept in memory alone: {cause}")
        elif not aside:
            self._tell("history.resumed", "it is written down again")

    # Telling.

    async def subjects(self) -> Mapping[str, str]:
        """All that anything is kept of, with its alias as last seen; "" for none."""
        self._check_on()
        self._take_in()
        kept = (await self._contents()).subjects
        return {**kept, **{name: self._aliases.get(name, "") for name in self._ring.subjects()}}

    async def query(self, asked: Asked) -> Answer:
        """What was. Raises OptionInvalid for more than an answer holds, WrongState when off."""
        self._check_on()
        check(asked)
        self._take_in()
        remembered = {
            subject: _Remembered(
                packed=self._ring.packed(subject), unpacked=self._ring.unpacked(subject)
            )
            for subject in asked.subjects
        }
        contents = await self._contents()
        oldest = dict(contents.oldest)
        in_ring = self._ring.oldest()
        if in_ring is not None:
            oldest[FINE] = min(in_ring, oldest.get(FINE, in_ring))
        step = step_of(asked, oldest)
        found: list[Series] = []
        for subject in asked.subjects:
            kept = await self._kept(subject, asked, step) if contents.oldest else {}
            mine = remembered[subject]
            # What the file no longer has, or never took, is taken for older than what it has.
            alone = {(FINE, start): body for start, body in mine.packed}
            packed = {key: body for key, body in alone.items() if key not in kept} | kept
            # A thread: a month of minutes takes a tenth of a second to unpack.
            told = await asyncio.to_thread(_told, subject, asked, step, (packed, mine.unpacked))
            found.extend(told)
        return Answer(
            series=tuple(found), step=step, oldest=min(oldest.values()) if oldest else None
        )

    def _check_on(self) -> None:
        if not self.is_on:
            raise WrongState(
                name="the history", state="off", advice="set history.on = true and restart gpud"
            )

    async def _contents(self) -> Contents:
        try:
            return await self._keeper.ask(lambda file: file.contents())
        except (HistoryUnwritable, TimeoutError):  # it was told; the ring has the newest
            return Contents(subjects={}, oldest={})

    async def _kept(self, subject: str, asked: Asked, step: int) -> dict[tuple[int, int], bytes]:
        steps, begin, end = steps_for(step), asked.begin - step, asked.end
        try:
            rows = await self._keeper.ask(lambda file: file.read(subject, steps, begin, end))
        except (HistoryUnwritable, TimeoutError):
            return {}
        return {(kept_step, start): body for kept_step, start, body in rows}


def _told(
    subject: str,
    asked: Asked,
    step: int,
    blocks: tuple[Mapping[tuple[int, int], bytes], Block | None],
) -> list[Series]:
    packed, unpacked = blocks
    return list(series_of(subject, asked, step, packed, unpacked))
