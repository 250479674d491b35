"""Cordons devices whose verdict is fatal: once for each sign, for an admin has the last word."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import structlog

from gpud.devices.snapshot import Health, Sample, Snapshot
from gpud.devices.verdict.telling import advice
from gpud.ledger.books import Cordon
from gpud.promises.promises import Promises, encoded
from gpud.store import Row

log = structlog.get_logger()

ACTOR = "gpud"
KIND = "sign"
# Errors are counted anew in each life of the daemon: those of the last one are not kept.
_PASSING = "xid "


class Signs(msgspec.Struct, frozen=True):
    """The fatal signs of a device for which it was cordoned, as long as it shows them."""

    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSeams:
    """What it acts through. `settle`: a device (UUID) was dealt with, its errors count no more."""

    promises: Promises
    is_writable: Callable[[], bool]
    settle: Callable[[str], None]


class Quarantine:
    """Looks at each snapshot before the ledger does, so that nothing is granted in between.

    A device that somebody else has cordoned is left to that: its turn comes once that is lifted.
    """

    def __init__(self, seams: QuarantineSeams) -> None:
        self._seams = seams
        self._acted: dict[str, frozenset[str]] = {}
        self._ours: set[str] = set()  # cordoned by gpud as of the last snapshot
        self._is_read = False

    def observe(self, snapshot: Snapshot) -> None:
        """Cordon what shows a fatal sign for the first time; hear of cordons that were lifted."""
        if not self._seams.is_writable():
            self._is_read = False  # what was decided last may be void
            return
        if not self._is_read and not self._restore():
            return
        cordons = self._seams.promises.ledger.books.cordons
        for uuid in [each for each in self._ours if each not in cordons]:
            self._ours.discard(uuid)
            log.info("device.settled", device=uuid)
            self._seams.settle(uuid)
        for sample in snapshot.samples:
            uuid, shown = sample.info.uuid, frozenset(sample.verdict.signs)
            if shown or uuid in self._acted:
                self._look(sample, shown, snapshot.wall)

    def _look(self, sample: Sample, shown: frozenset[str], wall: float) -> None:
        uuid, promises = sample.info.uuid, self._seams.promises
        acted = self._acted.get(uuid, frozenset())
        known = promises.ledger.books.cordons.get(uuid)
        if shown - acted and (known is None or known.actor == ACTOR):
            verdict = sample.verdict
            reason = f"{verdict.reason}; {advice(verdict)}"
            self._ours.add(uuid)
            self._note(uuid, acted | shown)
            promises.condemn(uuid, Cordon(reason=reason, actor=ACTOR, wall=wall), self._rows(uuid))
        elif acted - shown and sample.health is Health.HEALTHY:
            # What it shows no more counts anew when it comes back.
            self._note(uuid, acted & shown)
            promises.keep(self._rows(uuid))

    def _note(self, uuid: str, signs: frozenset[str]) -> None:
        if signs:
            self._acted[uuid] = signs
        else:
            self._acted.pop(uuid, None)

    def _rows(self, uuid: str) -> tuple[Row, ...]:
        kept = _lasting(self._acted.get(uuid, frozenset()))
        body = encoded(Signs(signs=kept)) if kept else None
        return (Row(kind=KIND, id=uuid, body=body),)

    def _restore(self) -> bool:
        """Read back what was acted on; False where the store cannot be read now."""
        promises = self._seams.promises
        try:
            read = promises.read(KIND, Signs)
        except sqlite3.Error:
            return False
        passing = {
            uuid: frozenset(signs) - frozenset(_lasting(signs))
            for uuid, signs in self._acted.items()
            if uuid in promises.ledger.books.cordons
        }
        lasting = {uuid: frozenset(each.signs) for uuid, each in read.items()}
        uuids = passing.keys() | lasting.keys()
        empty: frozenset[str] = frozenset()
        self._acted = {uuid: passing.get(uuid, empty) | lasting.get(uuid, empty) for uuid in uuids}
        cordons = promises.ledger.books.cordons
        self._ours = {uuid for uuid, cordon in cordons.items() if cordon.actor == ACTOR}
        self._is_read = True
        return True


def _lasting(signs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(sign for sign in signs if not sign.startswith(_PASSING)))
