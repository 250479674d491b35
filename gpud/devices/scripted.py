"""Pure: which readings a scenario may give a simulated card, and what each may be."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec

from gpud.devices.snapshot import Readings
from gpud.devices.verdict.throttling import NAMES
from gpud.devices.verdict.verdict import RECOVERY_ACTIONS

# What processes hold there decides these.
_NOT_SCRIPTED = frozenset({"memory_used_bytes", "memory_driver_reserved_bytes"})
READING_KEYS = frozenset(Readings.__struct_fields__) - _NOT_SCRIPTED
_WORDS = {"throttle_reasons": tuple(sorted(NAMES)), "recovery_action": tuple(RECOVERY_ACTIONS)}
_NAMES: dict[str, Any] = {
    "throttle_reasons": tuple[Literal[tuple(_WORDS["throttle_reasons"])], ...],  # type: ignore[misc]
    "recovery_action": Literal[tuple(_WORDS["recovery_action"])],
}


def scripted_readings() -> type[msgspec.Struct]:
    """A struct of all of them, None where a script is silent; shares are 0 to 100, none is < 0."""
    hints = get_type_hints(Readings)
    fields = [(name, _bounded(name, hints[name]) | None, None) for name in sorted(READING_KEYS)]
    return msgspec.defstruct("ScriptedReadings", fields, frozen=True)


def explained(problem: str) -> str:
    """What msgspec says of a card's script, with the words that may stand there."""
    told = problem.replace("`$[...].", "`").removesuffix(" - at `$[...]`")
    key = next((name for name in _WORDS if f"`{name}" in told), "")
    is_word = told.startswith("Invalid enum value")
    return f"{told}; write one of {', '.join(_WORDS[key])}" if key and is_word else told


def _bounded(name: str, hint: Any) -> Any:
    if name in _NAMES:
        return _NAMES[name]
    kind = next(each for each in get_args(hint) if each is not types.NoneType)
    if kind not in (int, float):
        return kind
    most = 100 if name.endswith("_percent") else None
    if name.endswith("_celsius"):
        return kind  # a card in an unheated hall
    return Annotated[kind, msgspec.Meta(ge=0, le=most)]
