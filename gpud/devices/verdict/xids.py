"""Pure: NVIDIA's error numbers (Xids), what each means and what is done about it.

After NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors): which of them end at the
application, which at a reset, which at a reboot.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpud.devices.snapshot import Action

UNKNOWN_MEANING = "not in gpud's table; see NVIDIA's catalogue of Xids"


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """What one number means. `is_fatal`: nothing new may be put on the card."""

    meaning: str
    action: Action = Action.NONE
    is_fatal: bool = False


def _app(meaning: str) -> Xid:
    return Xid(meaning=meaning, action=Action.RESTART_APP)


def _reset(meaning: str) -> Xid:
    return Xid(meaning=meaning, action=Action.RESET, is_fatal=True)


XIDS: dict[int, Xid] = {
    13: _app("the graphics engine met an error, mostly an application's"),
    31: _app("an application used memory that is not its own (page fault)"),
    32: _app("an application's stream of commands is corrupted"),
    39: _app("a copy engine met an error"),
    40: _app("a copy engine met an error"),
    41: _app("a copy engine met an error"),
    43: Xid(meaning="the card stopped working for an application and went on for the others"),
    44: Xid(meaning="the graphics engine met a fault while it switched contexts"),
    # Every process that is killed leaves one, and gpud kills what does not end by itself.
    45: Xid(meaning="it cleaned up after a process that was ended; no fault of its own"),
    46: _reset("the card stopped working"),
    48: _reset("an error of its memory that could not be corrected (double bit)"),
    62: _reset("its micro-controller halted"),
    63: Xid(meaning="a bad page or row of its memory was noted, to be replaced"),
    64: _reset("a bad page or row of its memory could not be noted"),
    69: _app("the graphics engine was given a command that it does not know"),
    70: _app("a copy engine met an error"),
    71: _app("a copy engine met an error"),
    72: _app("a copy engine met an error"),
    74: _reset("an NVLink met an error"),
    79: Xid(meaning="it has fallen off the bus", action=Action.REBOOT, is_fatal=True),
    92: Xid(meaning="many corrected errors of its memory (single bit)"),
    94: _app("an error of its memory was contained in one application"),
    95: _reset("an error of its memory could not be contained"),
    109: _reset("switching contexts took too long"),
    110: _reset("a fault of its security engine"),
    119: _reset("its system processor (GSP) does not answer"),
    120: _reset("its system processor (GSP) met an error"),
    136: _reset("an NVLink could not be trained"),
    137: Xid(meaning="an application had no right to memory over NVLink"),
    140: _reset("an error of its memory was not recovered from"),
    143: _reset("it could not be initialised"),
    154: Xid(meaning="its driver changed what it says would bring the card back"),
    155: _reset("an NVLink met an error that its software defines"),
    156: _reset("a part of it was taken out of use"),
    158: _reset("it timed out for good"),
}


def meaning(number: int) -> str:
    """What a number means, in a few words."""
    known = XIDS.get(number)
    return known.meaning if known is not None else UNKNOWN_MEANING
