"""What simulated cards are told to show: the scenario file, read again when it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

_Bytes = Annotated[int, msgspec.Meta(ge=0)]


class ForeignUse(msgspec.Struct, frozen=True):
    """A process that no reservation knows; its pid need not exist."""

    pid: Annotated[int, msgspec.Meta(ge=1)]
    bytes: _Bytes


class CardScript(msgspec.Struct, frozen=True):
    """What one card shows; what is left out stays as the card's data has it.

    `unsupported` names fields of Readings, or `processes`: the card refuses to read them. `lost`:
    the driver says that it is gone. `hang`: the call that reads it does not come back. `xid` holds
    error numbers for whoever watches driver errors.
    """

    temperature_celsius: float | None = None
    utilization_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    power_watts: Annotated[float, msgspec.Meta(ge=0)] | None = None
    foreign: tuple[ForeignUse, ...] = ()
    free_delay_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    lost: bool = False
    hang: bool = False
    unsupported: tuple[str, ...] = ()
    xid: tuple[int, ...] = ()


_decoder = msgspec.json.Decoder(dict[str, CardScript])
_PLAIN = CardScript()


class Scenario:
    """The script of each card, by alias.

    No file means no script. A file that cannot be read leaves the last good one in force and is
    complained of once: whoever writes it may be half-way through.
    """

    def __init__(self, path: str, complain: Callable[[str], None]) -> None:
        self._path = Path(path) if path else None
        self._complain = complain
        self._scripts: dict[str, CardScript] = {}
        self._version: tuple[int, int, int] | None = None

    def script(self, alias: str) -> CardScript:
        """What this card is to show now."""
        self._refresh()
        return self._scripts.get(alias, _PLAIN)

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            state = self._path.stat()
            version = state.st_mtime_ns, state.st_size, state.st_ino
            if version == self._version:
                return
            self._version = version
            self._scripts = _decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            self._version, self._scripts = None, {}
        except (OSError, ValueError, msgspec.MsgspecError) as problem:
            self._complain(f"{self._path}: {problem}; the last good scenario stays in force")
