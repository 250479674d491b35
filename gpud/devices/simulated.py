"""Simulated cards: they behave like cards, and show what their data and the scenario say."""

from __future__ import annotations

import os
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from gpud.clock import Clock
from gpud.devices.driver import (
    NO_LONGER_LISTED,
    Aliases,
    Asking,
    ComputeModeRefused,
    DeviceLost,
    ModeRefusal,
    unheard,
)
from gpud.devices.processes import ProcessRecord, ProcessTable
from gpud.devices.scripted import READING_KEYS, explained, scripted_readings
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings
from gpud.units import MIB

HANG_RECHECK_SECONDS = 0.05
FOREIGN_NAME = "foreign"
PROCESSES_FIELD = "processes"
MEMORY_FIELD = "memory_used_bytes"
_IDLE_PERFORMANCE_STATE = 8

_Bytes = Annotated[int, msgspec.Meta(ge=0)]
_Xid = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class ForeignUse(msgspec.Struct, frozen=True):
    """A process that no reservation knows; its pid need not exist."""

    pid: Annotated[int, msgspec.Meta(ge=1)]
    bytes: _Bytes


class CardScript(msgspec.Struct, frozen=True):
    """How one card behaves; what is left out is as usual.

    Beside these keys a script may set any field of Readings but the used memory, which is that of
    processes (`scripted_readings`). `unsupported` names fields of Readings, or `processes`: the
    card refuses to read them. `lost`: the driver says that it is gone. `absent`: the driver does
    not even list it, as if it were not plugged in. `hang`: the call that reads it does not come
    back. `xid` holds the errors that its driver has reported: each number that is added to it is
    reported once.
    """

    foreign: tuple[ForeignUse, ...] = ()
    free_delay_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    lost: bool = False
    absent: bool = False
    hang: bool = False
    unsupported: tuple[str, ...] = ()
    xid: tuple[_Xid, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a card behaves, and the readings that it shows instead of its own."""

    card: CardScript
    readings: Mapping[str, Any]


_decoder = msgspec.json.Decoder(dict[str, CardScript])
_readings_decoder: msgspec.json.Decoder[dict[str, msgspec.Struct]] = msgspec.json.Decoder(
    dict[str, scripted_readings()]  # type: ignore[misc]
)
# What the others leave out: unknown keys.
_key_decoder = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_PLAIN = Script(card=CardScript(), readings=MappingProxyType({}))
_KEYS = frozenset(CardScript.__struct_fields__) | READING_KEYS


class Scenario:
    """The script of each card, by alias.

    No file means no script. A file that cannot be read leaves the last good one in force: whoever
    writes it may be half-way through. Each thing that is wrong with it is complained of once.
    """

    def __init__(
        self, path: str, complain: Callable[[str], None], aliases: Collection[str]
    ) -> None:
        self._path = path
        self._complain = complain
        self._aliases = aliases
        self._scripts: dict[str, Script] = {}
        # None: it was not there when it was last looked for; (): not looked for yet.
        self._version: tuple[int, ...] | None = ()
        self._unknown: set[str] = set()

    def script(self, alias: str) -> Script:
        """What this card is to show now."""
        self._refresh()
        return self._scripts.get(alias, _PLAIN)

    def scripts(self) -> Mapping[str, Script]:
        """All there are, by alias."""
        self._refresh()
        return self._scripts

    def _refresh(self) -> None:
        if not self._path:
            return
        text = b""
        try:
            state = os.stat(self._path)  # noqa: PTH116 -- asked for each card at each tick
            version = state.st_mtime_ns, state.st_size, state.st_ino
            if version == self._version:
                return
            self._version = version
            text = Path(self._path).read_bytes()
            cards, readings = _decoder.decode(text), _readings_decoder.decode(text)
            self._scripts = {
                alias: Script(card=card, readings=_said(readings[alias]))
                for alias, card in cards.items()
            }
            self._tell_unknown(_key_decoder.decode(text))
        except FileNotFoundError:
            if self._version is not None:
                self._complain(
                    f"{self._path}: there is no such file; cards show what they usually do"
                )
            self._version, self._scripts = None, {}
        except (OSError, ValueError, msgspec.MsgspecError) as problem:
            told = _told(text, problem)
            self._complain(f"{self._path}: {told}; the last good scenario stays in force")

    def _tell_unknown(self, keys: dict[str, dict[str, msgspec.Raw]]) -> None:
        known = ", ".join(sorted(self._aliases))
        problems = {
            alias: f"`{alias}` is no simulated card; there are: {known}"
            for alias in keys.keys() - set(self._aliases)
        } | {
            f"{alias}.{key}": f"`{alias}` has the unknown key `{key}`"
            for alias, script in keys.items()
            for key in script.keys() - _KEYS
        }
        for name in sorted(problems.keys() - self._unknown):
            self._complain(f"{self._path}: {problems[name]}; it is ignored")
        self._unknown |= problems.keys()


def _told(text: bytes, problem: Exception) -> str:
    """The problem; where a script is wrong, of which card, and what may stand there instead."""
    scripts = msgspec.json.decode(text) if isinstance(problem, msgspec.ValidationError) else {}
    for alias, script in scripts.items() if isinstance(scripts, dict) else ():
        one = msgspec.json.encode({alias: script})
        try:
            _decoder.decode(one)
            _readings_decoder.decode(one)
        except msgspec.ValidationError as own:
            return f"{alias}: {explained(str(own))}"
    return str(problem)


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of card: what nvidia-smi shows for an idle one. `fan_percent` None: no fan."""

    model_name: str
    memory_total_mib: int
    power_limit_watts: float
    idle_power_watts: float
    idle_temperature_celsius: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    fan_percent: float | None
    mig_capable: bool


def load_cards() -> dict[str, Card]:
    """Every card that there is data for, by the name that the configuration uses."""
    # Not importlib.resources: its imports would be a tenth of the sampling process.
    data = pkgutil.get_data("gpud.devices", "cards.json") or b"{}"
    return msgspec.json.decode(data, type=dict[str, Card])


@dataclass(slots=True)
class _Slot:
    """One simulated card in its slot, and what its memory remembers."""

    info: DeviceInfo
    card: Card
    # Bytes by pid as last seen, foreign ones included; and (boottime when free, bytes).
    held: dict[int, int] = field(default_factory=dict)
    freeing: list[tuple[float, int]] = field(default_factory=list)
    # The errors of its script that were reported.
    reported: Counter[int] = field(default_factory=Counter)


class SimulatedDriver:
    """Cards whose memory is the resident memory of the processes that are attached to them.

    A process is attached when its CUDA_VISIBLE_DEVICES names the card's UUID. A card told to hang
    blocks its caller until the scenario says otherwise.
    """

    def __init__(
        self,
        slots: tuple[tuple[DeviceInfo, Card], ...],
        table: ProcessTable,
        scenario: Scenario,
        clock: Clock,
    ) -> None:
        self._slots = {info.uuid: _Slot(info, card) for info, card in slots}
        self._table = table
        self._scenario = scenario
        self._clock = clock
        self._never = threading.Event()

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        """Every card that is configured, but for those that the scenario takes out."""
        return tuple(
            slot.info
            for slot in self._slots.values()
            if not self._scenario.script(slot.info.alias).card.absent
        )

    def readings(self, uuid: str) -> Readings:
        """The card's idle figures, the scenario's over them, and its memory."""
        slot, script = self._call(uuid)
        card = slot.card
        idle = not script.readings.get("utilization_percent")
        usual = Readings(
            memory_used_bytes=self._used_bytes(slot, script.card),
            utilization_percent=0.0,
            memory_utilization_percent=0.0,
            temperature_celsius=card.idle_temperature_celsius,
            power_watts=card.idle_power_watts,
            power_limit_watts=card.power_limit_watts,
            fan_percent=card.fan_percent,
            sm_clock_mhz=card.sm_clock_mhz,
            memory_clock_mhz=card.memory_clock_mhz,
            compute_mode="default",
            mig_enabled=False if card.mig_capable else None,
            performance_state=_IDLE_PERFORMANCE_STATE if idle else 0,
            throttle_reasons=("idle",) if idle else (),
        )
        refused = {name: None for name in script.card.unsupported if name in READING_KEYS}
        if MEMORY_FIELD in script.card.unsupported:
            refused[MEMORY_FIELD] = None
        if not script.readings and not refused:
            return usual
        return usual.changed(**{**script.readings, **refused})

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Attached processes, and the scenario's foreign ones."""
        slot, script = self._call(uuid)
        if PROCESSES_FIELD in script.card.unsupported:
            return None
        foreign = tuple(
            ProcessUse(
                pid=use.pid,
                start_time=None,
                process_name=FOREIGN_NAME,
                used_bytes=use.bytes,
                kind=ProcessKind.COMPUTE,
            )
            for use in script.card.foreign
        )
        return foreign + tuple(
            ProcessUse(
                pid=record.pid,
                start_time=record.start_time,
                process_name=record.name,
                used_bytes=used_bytes,
                kind=ProcessKind.COMPUTE,
                claim=record.claim,
                attached=record.attached,
            )
            for record, used_bytes in self._attached(slot, script.card)
        )

    def told_xids(self, told: Mapping[str, Mapping[int, int]]) -> None:
        """What earlier lives have reported, by UUID and number, is reported no more."""
        for uuid, slot in self._slots.items():
            slot.reported = Counter(told.get(uuid, {}))

    def alarms(self) -> tuple[tuple[str, int], ...]:
        """What was added to the lists of errors since the last call."""
        scripts = self._scenario.scripts()
        found: list[tuple[str, int]] = []
        for uuid, slot in self._slots.items():
            script = scripts.get(slot.info.alias)
            if script is None and not slot.reported:
                continue
            listed = Counter(script.card.xid if script is not None else ())
            found += ((uuid, number) for number in (listed - slot.reported).elements())
            slot.reported = listed
        return tuple(found)

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        """Refused: nothing keeps a process off a card that is not there."""
        raise ComputeModeRefused(
            uuid=uuid, mode=mode, why=ModeRefusal.NOT_SUPPORTED, detail="the card is simulated"
        )

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, uuid: str) -> tuple[_Slot, Script]:
        """What every call to a card meets first: it hangs, or it is gone, or it answers."""
        slot = self._slots.get(uuid)
        if slot is None:
            raise DeviceLost(uuid=uuid, reason="there is no such simulated card")
        while (script := self._scenario.script(slot.info.alias)).card.hang:
            self._never.wait(HANG_RECHECK_SECONDS)
        if script.card.absent:
            raise DeviceLost(uuid=uuid, reason=NO_LONGER_LISTED)
        if script.card.lost:
            raise DeviceLost(uuid=uuid, reason="the scenario says that it is lost")
        return slot, script

    def _attached(self, slot: _Slot, script: CardScript) -> list[tuple[ProcessRecord, int]]:
        foreign = {use.pid for use in script.foreign}
        return [
            (record, used_bytes)
            for record in self._table.attached_to(slot.info.uuid)
            if record.pid not in foreign
            and (used_bytes := self._table.resident_bytes(record.pid)) is not None
        ]

    def _used_bytes(self, slot: _Slot, script: CardScript) -> int:
        """What processes hold, and what the ended ones held until its free has come through."""
        now = self._clock.now().boottime
        held = {record.pid: size for record, size in self._attached(slot, script)}
        held |= {use.pid: use.bytes for use in script.foreign}
        slot.freeing += [
            (now + script.free_delay_seconds, size)
            for pid, size in slot.held.items()
            if pid not in held and script.free_delay_seconds
        ]
        slot.freeing = [(due, size) for due, size in slot.freeing if due > now]
        slot.held = held
        used = sum(held.values()) + sum(size for _, size in slot.freeing)
        # No card shows more in use than it has.
        return min(used, slot.info.memory_total_bytes or used)


def simulated_slots(
    wanted: tuple[tuple[str, int], ...], aliases: Aliases
) -> tuple[tuple[DeviceInfo, Card], ...]:
    """The cards of (name, count), numbered per name. Raises KeyError for an unknown name."""
    cards = load_cards()
    slots = []
    numbers: dict[str, int] = {}
    for name, count in wanted:
        for _ in range(count):
            number = numbers.get(name, 0)
            numbers[name] = number + 1
            slots.append((_describe(f"SIM-{name}-{number}", cards[name], aliases), cards[name]))
    return tuple(slots)


def _describe(uuid: str, card: Card, aliases: Aliases) -> DeviceInfo:
    index = aliases.index(uuid)
    return DeviceInfo(
        uuid=uuid,
        alias=f"gpu{index}",
        index=index,
        kind=DeviceKind.SIMULATED,
        model_name=card.model_name,
        memory_total_bytes=card.memory_total_mib * MIB,
        tells_xids=True,
    )


def _said(readings: msgspec.Struct) -> Mapping[str, Any]:
    """The fields that a script gives a value."""
    fields = msgspec.structs.asdict(readings).items()
    return {name: value for name, value in fields if value is not None}
