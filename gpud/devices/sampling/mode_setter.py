"""Sets compute modes in the sampling process, each on a thread of its own: it may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gpud.devices.driver import (
    ComputeModeRefused,
    DeviceLost,
    Driver,
    ModeOutcome,
    ModeRefusal,
)
from gpud.devices.sampling.frames import ModeAnswer


class ModeSetter:
    """Carries out `mode` commands. One call to a device at a time: modes come in their order.

    `send` is called by other threads too.
    """

    def __init__(self, send: Callable[[ModeAnswer], None]) -> None:
        self._send = send
        # Added to by the caller alone; one set operation each, so no lock.
        self._busy: set[str] = set()

    def set(self, number: int, uuid: str, mode: str, driver: Driver | None) -> None:
        """Begin; the answer is sent when there is one. `driver` None: the device is left out."""
        if driver is None or uuid in self._busy:
            detail = "it is not read now" if driver is None else "an earlier call is not back yet"
            outcome = ModeOutcome(refusal=ModeRefusal.NO_ANSWER, detail=detail)
            self._send(ModeAnswer(number=number, outcome=outcome))
            return
        self._busy.add(uuid)

        def run() -> None:
            outcome = _outcome(driver, uuid, mode)
            self._busy.discard(uuid)
            self._send(ModeAnswer(number=number, outcome=outcome))

        threading.Thread(target=run, name="mode", daemon=True).start()


def _outcome(driver: Driver, uuid: str, mode: str) -> ModeOutcome:
    """Set it, then read it back, whatever the driver said: only what it shows counts."""
    refusal, detail = None, ""
    try:
        driver.set_compute_mode(uuid, mode)
    except ComputeModeRefused as refused:
        refusal, detail = refused.why, refused.detail
    if refusal is ModeRefusal.NOT_SUPPORTED:
        return ModeOutcome(refusal=refusal, detail=detail)
    try:
        shown = driver.readings(uuid).compute_mode
    except DeviceLost as lost:
        return ModeOutcome(refusal=ModeRefusal.LOST, detail=lost.reason)
    return ModeOutcome(shown=shown, refusal=refusal, detail=detail)
