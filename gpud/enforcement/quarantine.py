"""Cordons devices whose verdict is fatal: once for each sign, for an admin has the last word."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from gpud.devices.snapshot import Health, Sample, Snapshot
from gpud.devices.verdict.tally import Open
from gpud.devices.verdict.telling import advice
from gpud.devices.verdict.verdict import XID_SIGN, xid_sign
from gpud.ledger.books import Cordon
from gpud.promises.promises import Promises, encoded
from gpud.store import Row

log = structlog.get_logger()

ACTOR = "gpud"
KIND = "sign"


class Signs(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fatal signs of a device for which it was cordoned, as long as it shows them.

    `xids` are the errors behind those that it shows, whoever has cordoned it: in the boot of
    `boot_id` they speak against it until somebody has dealt with them.
    """

    signs: tuple[str, ...] = ()
    boot_id: str = ""
    xids: dict[int, Open] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSeams:
    """What it acts through; devices go by their UUIDs.

    `settle`: one was dealt with, its errors count no more. `open_xids`: its errors that do, by
    number. `restore_xids`: such as were kept.
    """

    promises: Promises
    boot_id: str
    is_writable: Callable[[], bool]
    settle: Callable[[str], None]
    open_xids: Callable[[str], Mapping[int, Open]]
    restore_xids: Callable[[str, Mapping[int, Open]], None]


class Quarantine:
    """Looks at each snapshot before the ledger does, so that nothing is granted in between.

    A device that somebody else has cordoned is left to that: its turn comes once that is lifted.
    """

    def __init__(self, seams: QuarantineSeams) -> None:
        self._seams = seams
        self._kept: dict[str, Signs] = {}
        self._shown: set[str] = set()  # the devices of the last snapshot
        self._ours: set[str] = set()  # cordoned by gpud as of the last snapshot
        self._is_read = False

    def restore(self) -> None:
        """Know again what was acted on, at the start; where that cannot be read, once it can."""
        self._is_read = self._restore()

    def observe(self, snapshot: Snapshot) -> None:
        """Cordon what shows a fatal sign for the first time; hear of cordons that were lifted."""
        if not self._seams.is_writable():
            self._is_read = False  # what was decided last may be void
            return
        if not self._is_read:
            self.restore()
            if not self._is_read:
                return
        cordons = self._seams.promises.ledger.books.cordons
        for uuid in [each for each in self._ours if each not in cordons]:
            self._ours.discard(uuid)
            log.info("device.settled", device=uuid)
            self._seams.settle(uuid)
        self._forget({sample.info.uuid for sample in snapshot.samples})
        for sample in snapshot.samples:
            uuid, shown = sample.info.uuid, frozenset(sample.verdict.signs)
            # A slice shows what its card shows, also once it is gone.
            if (shown or uuid in self._kept) and not sample.is_gone_slice:
                self._look(sample, shown, snapshot.wall)

    def _forget(self, shown: set[str]) -> None:
        """A device that is shown no more was forgotten: all that it shows once it is back is new.

        Not so one that no snapshot of this life has shown yet: it may only not have been read.
        """
        for uuid in self._shown - shown:
            if self._kept.pop(uuid, None) is not None:
                self._seams.promises.keep((_row(uuid, Signs()),))
        self._shown = shown

    def _look(self, sample: Sample, shown: frozenset[str], wall: float) -> None:
        uuid, promises = sample.info.uuid, self._seams.promises
        kept = self._kept.get(uuid, Signs())
        acted = frozenset(kept.signs)
        known = promises.ledger.books.cordons.get(uuid)
        is_new = bool(shown - acted) and (known is None or known.actor == ACTOR)
        # What it shows no more counts anew when it comes back; of one that is silent that is not
        # known, but for errors, which are over once they are dealt with.
        over = acted - shown
        if sample.health is not Health.HEALTHY:
            over = over - _lasting(over)
        now = self._signs(uuid, (acted | shown if is_new else acted) - over, shown)
        if now == kept:
            return
        self._kept[uuid] = now
        rows = (_row(uuid, now),)
        if now == Signs():
            del self._kept[uuid]
        if is_new:
            self._ours.add(uuid)
            reason = f"{sample.verdict.reason}; {advice(sample.verdict)}"
            promises.condemn(uuid, Cordon(reason=reason, actor=ACTOR, wall=wall), rows)
        else:
            promises.keep(rows)

    def _signs(self, uuid: str, acted: frozenset[str], shown: frozenset[str]) -> Signs:
        found = self._seams.open_xids(uuid).items()
        xids = {number: each for number, each in found if xid_sign(number, each) in shown}
        is_of_boot = bool(xids or acted - _lasting(acted))
        return Signs(
            signs=tuple(sorted(acted)),
            boot_id=self._seams.boot_id if is_of_boot else "",
            xids=xids,
        )

    def _restore(self) -> bool:
        """Read back what was acted on; False where the store cannot be read now."""
        promises = self._seams.promises
        try:
            read = promises.read(KIND, Signs)
        except sqlite3.Error:
            return False
        cordons = promises.ledger.books.cordons
        self._ours = {uuid for uuid, cordon in cordons.items() if cordon.actor == ACTOR}
        self._kept = {}
        for uuid, signs in read.items():
            still = signs if self._still_counts(uuid, signs) else _without_xids(signs)
            self._seams.restore_xids(uuid, still.xids)
            if still != Signs():
                self._kept[uuid] = still
            if still != signs and self._seams.is_writable():
                promises.keep((_row(uuid, still),))
        return True

    def _still_counts(self, uuid: str, signs: Signs) -> bool:
        """Whether its errors do: in this boot, as long as it is cordoned for whatever reason.

        Whoever lifted the cordon has dealt with them, though gpud ended before it settled that.
        """
        cordoned = uuid in self._seams.promises.ledger.books.cordons
        return signs.boot_id == self._seams.boot_id and (cordoned or not signs.xids)


def _row(uuid: str, signs: Signs) -> Row:
    return Row(kind=KIND, id=uuid, body=encoded(signs) if signs != Signs() else None)


def _without_xids(signs: Signs) -> Signs:
    return Signs(signs=tuple(sorted(_lasting(signs.signs))))


def _lasting(signs: Iterable[str]) -> frozenset[str]:
    return frozenset(sign for sign in signs if not sign.startswith(XID_SIGN))
