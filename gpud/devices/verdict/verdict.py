"""Pure: what is to be done about a device, from what it and its driver show.

The driver's own word (Readings.recovery_action, from driver 565 on) goes before the table of Xids
where the device answers: it knows whether an error was contained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from gpud.devices.snapshot import Action, Health, Readings, Verdict
from gpud.devices.verdict.tally import Open
from gpud.devices.verdict.xids import UNKNOWN_MEANING, XIDS

# An application that met an error has been restarted, or given up, by then.
APP_SECONDS = 600.0
# A driver that is only busy has answered by then.
SILENT_SECONDS = 60.0
# NVIDIA's rule for returning a card (docs.nvidia.com/deploy/dynamic-page-retirement).
RETIRED_PAGES_TOO_MANY = 60

_RECOVERY: Mapping[str, tuple[Action, str, bool]] = MappingProxyType(
    {
        "reset": (Action.RESET, "it needs a reset", True),
        "bus_reset": (Action.RESET, "its bus needs a reset", True),
        "drain_and_reset": (Action.RESET, "it works in part: drain it, then reset it", True),
        "drain_p2p": (Action.RESTART_APP, "what talks to other cards has to be ended", False),
        "recover_imex_domain": (Action.RESTART_APP, "the IMEX domain has to be recovered", False),
        "reboot": (Action.REBOOT, "the host needs a reboot", True),
        "system_reboot": (Action.REBOOT, "the host needs a power cycle", True),
    }
)
# The names of Readings.recovery_action.
RECOVERY_ACTIONS = ("none", *_RECOVERY)
CLEAN = Verdict()
# How the sign of an error begins: of those alone gpud itself knows when they are over.
XID_SIGN = "xid "


def judge(
    health: Health | None,
    readings: Readings,
    xids: Mapping[int, Open],
    boottime: float,
    silent_seconds: float = 0.0,
) -> Verdict:
    """The worst of all signs, at `boottime` seconds; `xids` are those not dealt with yet.

    `silent_seconds`: how long one that is UNRESPONSIVE has been so.

    A device that is gone is judged by its Xids and by that it is gone, not by what it last told;
    one that is only silent by what it told before.
    `health` None: its driver lists it no more, on purpose for all that is known.
    """
    answers = health in (Health.HEALTHY, Health.UNKNOWN)
    if answers and not xids and is_quiet(readings):
        return CLEAN
    found = [*_of_xids(xids, boottime, health, readings), *_of_health(health, readings)]
    if health is Health.UNRESPONSIVE and silent_seconds >= SILENT_SECONDS:
        reason = f"its driver has not answered for over {SILENT_SECONDS:.0f} s"
        found.append(Verdict(action=Action.INSPECT, reason=reason))
    if answers or health is Health.UNRESPONSIVE:
        found += (each for tell in _OWN_SIGNS for each in tell(readings))
    if not found:
        return CLEAN
    worst = max(found, key=lambda each: (each.is_fatal, each.action))
    signs = tuple(sorted(sign for each in found for sign in each.signs))
    return Verdict(action=worst.action, reason=worst.reason, is_fatal=worst.is_fatal, signs=signs)


def xid_sign(number: int, still: Open) -> str:
    """The sign of an error; the same error once more is another sign."""
    return f"{XID_SIGN}{number} #{still.total}"


def is_quiet(readings: Readings) -> bool:
    """Whether it shows no sign at all, as nearly every sample does."""
    return not (
        readings.remap_failed
        or readings.remap_pending
        or readings.retired_page_count
        or readings.ecc_uncorrected_count
        or readings.recovery_action in _RECOVERY
    )


def _of_xids(
    xids: Mapping[int, Open], boottime: float, health: Health | None, readings: Readings
) -> Iterator[Verdict]:
    told = readings.recovery_action is not None and health is Health.HEALTHY
    for number, still in xids.items():
        known = XIDS.get(number)
        reason = f"Xid {number}: {known.meaning if known else UNKNOWN_MEANING}"
        if still.count > 1:
            reason += f" ({still.count} times)"
        is_recent = boottime - still.boottime < APP_SECONDS
        if known is None or known.action is Action.NONE:
            continue
        if known.action is Action.RESTART_APP or (told and known.action is Action.RESET):
            # Whether the card needs a reset, its driver says; whoever was on it has met the error
            # all the same.
            if is_recent:
                yield Verdict(action=Action.RESTART_APP, reason=reason)
            continue
        yield _sign(known.action, reason, xid_sign(number, still))


def _of_health(health: Health | None, readings: Readings) -> Iterator[Verdict]:
    if health is not Health.LOST:
        return
    # It is granted nothing while it is gone, and may come back: no cordon. One that waits for a
    # reset will not by itself.
    gone = Verdict(action=Action.REBOOT, reason="its driver says that it is gone")
    yield from tuple(_of_recovery(readings)) or (gone,)


def _of_recovery(readings: Readings) -> Iterator[Verdict]:
    known = _RECOVERY.get(readings.recovery_action or "")
    if known is None:
        return
    action, words, is_fatal = known
    reason = f"its driver says: {words}"
    if is_fatal:
        yield _sign(action, reason, f"recovery {readings.recovery_action}")
    else:
        yield Verdict(action=action, reason=reason)


def _of_rows(readings: Readings) -> Iterator[Verdict]:
    if readings.remap_failed:
        reason = "a bad row of its memory could not be replaced: no spare one is left"
        yield _sign(Action.INSPECT, reason, "remap failed")
    if readings.remap_pending:
        reason = "a reset will replace a bad row of its memory"
        yield Verdict(action=Action.RESET, reason=reason)
    pages = readings.retired_page_count or 0
    if pages >= RETIRED_PAGES_TOO_MANY:
        reason = f"{pages} pages of its memory are out of use, {RETIRED_PAGES_TOO_MANY} too many"
        yield Verdict(action=Action.INSPECT, reason=reason)


def _of_ecc(readings: Readings) -> Iterator[Verdict]:
    """Whether one was contained, an Xid says; newer cards replace the row, and tell that."""
    count = readings.ecc_uncorrected_count or 0
    if count and readings.remap_pending is None and readings.recovery_action is None:
        errors = "1 error" if count == 1 else f"{count} errors"
        reason = f"{errors} of its memory could not be corrected since its driver was loaded"
        yield Verdict(action=Action.RESET, reason=reason)


_OWN_SIGNS: tuple[Callable[[Readings], Iterator[Verdict]], ...] = (
    _of_recovery,
    _of_rows,
    _of_ecc,
)


def _sign(action: Action, reason: str, sign: str) -> Verdict:
    return Verdict(action=action, reason=reason, is_fatal=True, signs=(sign,))
