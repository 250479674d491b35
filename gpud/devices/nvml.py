"""NVIDIA cards and MIG slices through NVML; what it is asked of one card is in nvidia/.

A card in MIG mode is listed with its slices: it still has heat and power of its own, and
`mig_enabled` says that its memory is the slices' to grant, not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynvml

from gpud.devices.driver import (
    NO_LONGER_LISTED,
    NVML,
    Aliases,
    Asking,
    ComputeModeRefused,
    DeviceLost,
    DriverOutdated,
    DriverUnavailable,
    ModeRefusal,
    unheard,
)
from gpud.devices.nvidia import calls
from gpud.devices.nvidia.alarms import Alarms
from gpud.devices.nvidia.card import LOST, PROCESS_LISTS, Card
from gpud.devices.nvidia.rare import COMPUTE_MODES, Quick, Rare
from gpud.devices.processes import ProcessTable
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings
from gpud.devices.topology import SYSFS, Nearness, format_cpus, members, nearest

# Words of 64 bits asked for: 4096 CPUs, 1024 memory nodes.
CPU_WORDS = 64
NODE_WORDS = 16
RARE_EVERY_READS = 5
_UNAVAILABLE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not installed",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA kernel driver is not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "its library and the loaded kernel driver are of different versions; "
        "reboot, or reload the kernel modules"
    ),
}
_MODE_NUMBERS = {name: number for number, name in COMPUTE_MODES.items()}
_MODE_REFUSALS = {
    pynvml.NVML_ERROR_NO_PERMISSION: ModeRefusal.NOT_PERMITTED,
    pynvml.NVML_ERROR_NOT_SUPPORTED: ModeRefusal.NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: ModeRefusal.NOT_SUPPORTED,
    **dict.fromkeys(LOST, ModeRefusal.LOST),
}


@dataclass(frozen=True, slots=True)
class _Memory:
    """Bytes; `reserved` None where the driver does not tell it apart from `used`."""

    total: int
    used: int
    reserved: int | None


class NvmlDriver:
    """NVML, initialised. Raises DriverUnavailable from the constructor, which may take seconds.

    `known`: devices described before, which are not described again. `untouched`: UUIDs of such
    that get no call beyond the one that finds them; it is read again at each discovery. What is
    dear to read is read once in `rare_every` reads.
    """

    def __init__(
        self,
        table: ProcessTable,
        aliases: Aliases,
        known: Iterable[DeviceInfo] = (),
        untouched: Set[str] = frozenset(),
        sysfs: Path = SYSFS,
    ) -> None:
        self._table = table
        self._sysfs = sysfs
        self._aliases = aliases
        self._infos = {info.uuid: info for info in known}
        self._untouched = untouched
        self._cards: dict[str, Card] = {}
        self.rare_every = RARE_EVERY_READS
        self._rares: dict[str, Rare] = {}
        self._rare_due: dict[str, int] = {}  # the read at which they are due, by UUID
        self._alarms = Alarms()
        self._bound = bound_cards(sysfs)
        try:
            pynvml.nvmlInit()
            self._driver_version = _text(pynvml.nvmlSystemGetDriverVersion)
        except pynvml.NVMLError as error:
            raise _unavailable(error) from error

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        """Cards in NVML's order, each followed by its slices.

        Raises DriverUnavailable, and DriverOutdated once the kernel driver has a card more.
        """
        bound = bound_cards(self._sysfs)
        if added := bound - self._bound:
            raise DriverOutdated(driver=NVML, added=tuple(sorted(added)))
        self._bound = bound
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise _unavailable(error) from error
        self._cards = {
            card.uuid: card for index in range(count) for card in self._find(index, asking)
        }
        return tuple(self._infos[uuid] for uuid in self._cards)

    def readings(self, uuid: str) -> Readings:
        """Every field; the rare ones as of one of the last `rare_every` reads.

        A MIG slice has only memory; the rest is its card's.
        """
        card = self._card(uuid)
        card.reads += 1
        memory = _read_memory(card)
        used, reserved = (memory.used, memory.reserved) if memory else (None, None)
        if self._infos[uuid].kind is DeviceKind.MIG:
            return Readings(memory_used_bytes=used, memory_driver_reserved_bytes=reserved)
        rare, is_due = self._rare(card)
        # The mode decides what the card answers to all the others.
        mig_enabled = card.tell_mig() if is_due else card.mig_enabled
        if is_due:
            rare.refresh()
        utilization = card.cell(calls.UTILIZATION)
        gpu, memory_bus = (
            (None, None) if utilization is None else calls.UTILIZATION_LAYOUT.unpack(utilization)
        )
        return rare.beside(
            Quick(
                used,
                reserved,
                gpu,
                memory_bus,
                card.number(calls.TEMPERATURE),
                card.number(calls.POWER),
                card.number(calls.SM_CLOCK),
                card.number(calls.COMPUTE_MODE),
                mig_enabled,
                _first(card, calls.THROTTLING),
            )
        )

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Compute, MPS and graphics processes, each once. None: compute ones never are told."""
        card = self._card(uuid)
        merged: dict[int, ProcessUse] = {}
        for kind, names in PROCESS_LISTS:
            listed = card.list_kind(kind, names)
            if listed is None and kind is ProcessKind.COMPUTE:
                return None
            for entry in listed or ():
                merged[entry.pid] = self._merge(merged.get(entry.pid), entry, kind)
        return tuple(merged.values())

    def alarms(self) -> tuple[tuple[str, int], ...]:
        """Xids; whose they are is read anew in whole, for its driver may say what helps."""
        found = self._alarms.drain()
        for uuid, _ in found:
            self._rare_due.pop(uuid, None)
        return found

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        """A card's mode; a slice has none of its own."""
        card = self._cards.get(uuid)
        if card is None:
            raise ComputeModeRefused(uuid=uuid, mode=mode, why=ModeRefusal.LOST)
        if mode not in _MODE_NUMBERS or self._infos[uuid].kind is DeviceKind.MIG:
            raise ComputeModeRefused(uuid=uuid, mode=mode, why=ModeRefusal.NOT_SUPPORTED)
        try:
            pynvml.nvmlDeviceSetComputeMode(card.handle, _MODE_NUMBERS[mode])
        except pynvml.NVMLError as error:
            why = _MODE_REFUSALS.get(error.value, ModeRefusal.FAILED)
            raise ComputeModeRefused(uuid=uuid, mode=mode, why=why, detail=str(error)) from error

    def close(self) -> None:
        """Shut NVML down."""
        self._alarms.close()
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _card(self, uuid: str) -> Card:
        card = self._cards.get(uuid)
        if card is None:
            raise DeviceLost(uuid=uuid, reason=NO_LONGER_LISTED)
        return card

    def _rare(self, card: Card) -> tuple[Rare, bool]:
        """The rare readings of a card, and whether it is their turn."""
        rare = self._rares.get(card.uuid)
        if rare is None or rare.card is not card:
            rare = self._rares[card.uuid] = Rare(card)
            self._rare_due.pop(card.uuid, None)
        is_due = card.reads >= self._rare_due.get(card.uuid, 0)
        if is_due:
            self._rare_due[card.uuid] = card.reads + self.rare_every
        return rare, is_due

    def _find(self, index: int, asking: Asking) -> Iterator[Card]:
        """The card of that index and its slices; nothing when it does not even tell its UUID."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            if uuid in self._untouched and uuid not in self._infos:
                return  # it hung before it was described, and would again
            asking(uuid)
            card = self._keep(uuid, handle, None)
            yield card
            if card.uuid in self._untouched or not card.tell_mig():
                return
            slots = card.ask(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0
        except (pynvml.NVMLError, DeviceLost):
            return
        for slot in range(slots):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, slot)
                yield self._keep(pynvml.nvmlDeviceGetUUID(handle), handle, card)
            except (pynvml.NVMLError, DeviceLost):
                continue  # an empty slot says "not found"

    def _keep(self, uuid: str, handle: Any, parent: Card | None) -> Card:
        """The card of this handle, described when it is new or its memory was not known."""
        card = self._cards.get(uuid) or Card(uuid, handle)
        card.reach(handle)
        info = self._infos.get(uuid)
        if info is None:
            info = self._describe(card, parent)
        elif info.memory_total_bytes is None and uuid not in self._untouched:
            memory = _read_memory(card)
            info = replace(info, memory_total_bytes=memory.total if memory else None)
        if parent is None and uuid not in self._untouched:
            tells_xids = self._alarms.watch(uuid, handle)
            if tells_xids is not info.tells_xids:
                info = replace(info, tells_xids=tells_xids)
        self._infos[uuid] = info
        return card

    def _describe(self, card: Card, parent: Card | None) -> DeviceInfo:
        index = self._aliases.index(card.uuid)
        memory = _read_memory(card)
        pci = (parent or card).ask(pynvml.nvmlDeviceGetPciInfo_v3)
        pci_bus_id = _decode(pci.busId) if pci else None
        near = nearest(pci_bus_id, _told_nearness(parent or card), self._sysfs)
        return DeviceInfo(
            uuid=card.uuid,
            alias=f"gpu{index}",
            index=index,
            kind=DeviceKind.MIG if parent else DeviceKind.GPU,
            model_name=card.ask(pynvml.nvmlDeviceGetName) or "unknown",
            memory_total_bytes=memory.total if memory else None,
            parent_uuid=parent.uuid if parent else None,
            pci_bus_id=pci_bus_id,
            driver_version=self._driver_version,
            numa_node=near.memory_node,
            cpu_affinity=near.cpus,
        )

    def _merge(self, earlier: ProcessUse | None, entry: Any, kind: ProcessKind) -> ProcessUse:
        if earlier is not None:
            sizes = [
                size for size in (earlier.used_bytes, entry.usedGpuMemory) if size is not None
            ]
            return replace(earlier, used_bytes=max(sizes, default=None))
        record = self._table.find(entry.pid)
        return ProcessUse(
            pid=entry.pid,
            start_time=record.start_time if record else None,
            process_name=record.name if record else "",
            used_bytes=entry.usedGpuMemory,
            kind=kind,
            claim=record.claim if record else None,
            attached=record.attached if record else False,
        )


def bound_cards(sysfs: Path) -> frozenset[str]:
    """The bus ids of the cards that the kernel driver has taken.

    NVML finds cards as it is initialised, so one that is plugged in, or given back by a virtual
    machine, later is seen here first.
    """
    try:
        entries = [entry.name for entry in (sysfs / "bus/pci/drivers/nvidia").iterdir()]
    except OSError:
        return frozenset()
    return frozenset(name for name in entries if ":" in name)  # its other files are orders


def _told_nearness(card: Card) -> Nearness:
    """What NVML itself says is nearest; several memory nodes at once are no answer."""
    scope = pynvml.NVML_AFFINITY_SCOPE_NODE
    memory = members(card.ask(pynvml.nvmlDeviceGetMemoryAffinity, NODE_WORDS, scope) or ())
    cpus = members(card.ask(pynvml.nvmlDeviceGetCpuAffinity, CPU_WORDS) or ())
    return Nearness(
        memory_node=min(memory) if len(memory) == 1 else None, cpus=format_cpus(cpus) or None
    )


def _read_memory(card: Card) -> _Memory | None:
    """Memory v2, which tells the driver's own share apart, else v1."""
    told = card.cell(calls.MEMORY_V2)
    if told is not None:
        _, total, reserved, _, used = calls.MEMORY_V2_LAYOUT.unpack(told)
        return _Memory(total, used, reserved)
    figures = card.ask(pynvml.nvmlDeviceGetMemoryInfo)
    return _Memory(figures.total, figures.used, None) if figures else None


def _first(card: Card, names: tuple[calls.Call, ...]) -> int | None:
    """The number of the first of several names of one call that has one."""
    for call in names:
        number = card.number(call)
        if number is not None:
            return number
    return None


def _unavailable(error: pynvml.NVMLError) -> DriverUnavailable:
    return DriverUnavailable(
        driver=NVML,
        reason=_UNAVAILABLE.get(error.value, str(error)),
        is_absent=error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    )


def _text(function: Callable[[], Any]) -> str | None:
    try:
        return _decode(function())
    except pynvml.NVMLError:
        return None


def _decode(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
