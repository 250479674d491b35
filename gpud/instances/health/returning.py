"""A new engine in the promise of the one before it, for the same files."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import GpudError, ModelFileInvalid, ModelNotFound, StoreReadOnly
from gpud.failpoints import around
from gpud.instances.instance import Gate, LoadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening, step
from gpud.instances.load import Load
from gpud.instances.needs import law_bytes, promised_files
from gpud.instances.starting.entry import EntryChanged
from gpud.instances.starting.handing import key_of
from gpud.instances.starting.ports import port_again
from gpud.instances.starting.start import check_devices
from gpud.instances.tree.output import mark
from gpud.ledger.change import Change
from gpud.models.catalogue import Inspection
from gpud.models.sources.refusals import ChecksumWrong
from gpud.units import format_size


@dataclass(kw_only=True, eq=False)
class FileReplaced(ModelFileInvalid):
    """It is not the file any more that was promised: nothing is started for it by itself."""


@dataclass(kw_only=True, eq=False)
class ModelGone(ModelNotFound):
    """Its entry was taken away, or given to another engine: nothing says how to start it."""

    reason = "MODEL_GONE"

    instance: str
    cause: str
    problem: str = "is not in the catalogue any more"

    def __str__(self) -> str:
        return (
            f"cannot start {self.instance} again: {self.name} {self.problem}, "
            f"and its engine failed ({self.cause}); once the entry is back, "
            f"`gpuctl reset {self.instance}` loads it anew"
        )


class Return:
    """Of one instance whose engine is gone."""

    def __init__(self, life: Life, load: Load) -> None:
        self._life = life
        self._house = life.house
        self._load = load

    def why_not_yet(self) -> GpudError | None:
        """What its devices, as they were last seen, have against a start; None: nothing."""
        house, instance = self._house, self._life.instance
        reservation = house.promises.ledger.books.reservations.get(instance.reservation or "")
        snapshot = house.snapshots.latest
        if reservation is None or snapshot is None or not house.policy.oom_prevention:
            return None
        samples = {each.info.uuid: each for each in snapshot.samples}
        try:
            check_devices(house, instance, reservation, samples)
        except GpudError as error:
            return error
        return None

    async def run(self) -> None:
        """To READY. Raises GpudError; FileReplaced where its files are others, ModelGone.

        Nothing of the former may run any more. The name stays, and the port where it is free.
        """
        life, load = self._life, self._load
        self._check_entry()
        program = await load.engine.program()
        inspection = await load.inspect()
        await self._check_same(inspection)
        await key_of(life)
        life.began, life.died_of_memory = self._house.clock.now().boottime, False
        life.progress.begin_anew()
        before = life.instance
        restarts = before.restarts + 1
        try:
            with around("heal.start"):
                await life.commit(
                    Change(),
                    state=step(before.name, before.state, Happening.PROMISED),
                    gate=Gate.INTENT,
                    shim=None,
                    pid=None,
                    port=port_again(before, self._house.roll()),
                    files=promised_files(inspection),
                    phase_seconds=(),
                )
        except StoreReadOnly:
            life.instance = before  # it was not started
            raise
        mark(life.folder, f"restart {restarts}")
        life.enter(LoadPhase.START, f"restart {restarts}")
        await load.start(program, inspection, restarts)

    def _check_entry(self) -> None:
        """Whether the catalogue, or what is kept of it, says how to start it. Raises ModelGone."""
        instance = self._life.instance
        try:
            _ = self._load.entry
        except ModelNotFound as error:
            gone = ModelGone(
                name=f"models/{instance.model}",
                instance=instance.name,
                cause=instance.healing.cause,
            )
            if isinstance(error, EntryChanged):
                gone.problem = error.problem
            raise gone from error

    async def _check_same(self, inspection: Inspection) -> None:
        """The sums that were promised, and room in the promise if they are other files now.

        A file that was written in place may look the same: its sum tells. Raises FileReplaced;
        ModelFileInvalid where a file cannot be read now.
        """
        instance, entry = self._life.instance, self._load.entry
        try:
            await self._load.check_sums(inspection)
        except ChecksumWrong as error:
            raise FileReplaced(model=entry.name, path=error.path, problem=error.problem) from error
        if instance.files != promised_files(inspection):
            self._check_fits(inspection)

    def _check_fits(self, inspection: Inspection) -> None:
        """Law against law: what was learned since has no say in whether these are larger."""
        instance, snapshot = self._life.instance, self._house.snapshots.latest
        samples = snapshot.samples if snapshot is not None else ()
        needed = law_bytes(self._load.estimator, inspection, instance, samples)
        footprint = instance.footprint
        if needed is None or footprint is None:
            return  # a start on a device that is not there is refused all the same
        promised = footprint.total_bytes - footprint.margin_bytes
        before = promised if instance.law_bytes is None else instance.law_bytes
        if needed - before > footprint.margin_bytes:
            entry = self._load.entry
            raise FileReplaced(
                model=entry.name,
                path=entry.path,
                problem=f"it is another file now and needs {format_size(needed)}, the one before "
                f"needed {format_size(before)}, and {format_size(footprint.total_bytes)} were "
                f"promised; unload {instance.name} and load it again",
            )
