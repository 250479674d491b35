"""NVIDIA cards and MIG slices through NVML: the only importer of pynvml.

A card in MIG mode is listed with its slices: it still has heat and power of its own, and
`mig_enabled` says that its memory is the slices' to grant, not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    ListRefused,
    ModeRefusal,
    unheard,
)
from gpud.devices.processes import ProcessTable
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings
from gpud.devices.topology import SYSFS, Nearness, format_cpus, members, nearest

# Words of 64 bits asked for: 4096 CPUs, 1024 memory nodes.
CPU_WORDS = 64
NODE_WORDS = 16
# A refusal that may pass is tried again after so many reads; old cards refuse half of the calls.
RETRY_REFUSED_AFTER_READS = 60

_NEVER_AGAIN = 1 << 62
_FOR_EVER = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_NO_PERMISSION,
    }
)
_LOST = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    }
)
_UNAVAILABLE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not installed",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA kernel driver is not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "its library and the loaded kernel driver are of different versions; "
        "reboot, or reload the kernel modules"
    ),
}
_COMPUTE_MODES = {
    pynvml.NVML_COMPUTEMODE_DEFAULT: "default",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD: "exclusive_thread",
    pynvml.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive_process",
}
_MODE_NUMBERS = {name: number for number, name in _COMPUTE_MODES.items()}
_MODE_REFUSALS = {
    pynvml.NVML_ERROR_NO_PERMISSION: ModeRefusal.NOT_PERMITTED,
    pynvml.NVML_ERROR_NOT_SUPPORTED: ModeRefusal.NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: ModeRefusal.NOT_SUPPORTED,
    **dict.fromkeys(_LOST, ModeRefusal.LOST),
}
# Newest call first: v3 came with driver 510, v2 with 450. A process is named after the first kind
# that lists it, because one that computes and draws is in both lists with all its memory.
_PROCESS_LISTS: tuple[tuple[ProcessKind, tuple[Callable[..., Any], ...]], ...] = (
    (
        ProcessKind.COMPUTE,
        (
            pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
            pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
        ),
    ),
    (
        ProcessKind.MPS,
        (
            pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
            pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2,
        ),
    ),
    (
        ProcessKind.GRAPHICS,
        (
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2,
        ),
    ),
)
_VITAL = frozenset(
    {pynvml.nvmlDeviceGetMemoryInfo, *(call for _, calls in _PROCESS_LISTS for call in calls)}
)


@dataclass(slots=True)
class _Card:
    """One handle, and what it will not answer: the call → the read from which to ask again."""

    uuid: str
    handle: Any
    reads: int = 0
    mig_enabled: bool | None = None
    refused: dict[tuple[Any, ...], int] = field(default_factory=dict)
    # What it has listed once: that it does not now says nothing of who is there.
    lists: set[ProcessKind] = field(default_factory=set)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        """The call's answer, or None if it is refused now or was before. Raises DeviceLost."""
        key = (function, *arguments)
        if self.refused.get(key, 0) > self.reads:
            return None
        try:
            return function(self.handle, *arguments)
        except pynvml.NVMLError as error:
            if error.value in _LOST:
                raise DeviceLost(uuid=self.uuid, reason=str(error)) from error
            self.refused[key] = self._next_try(function, error)
            return None

    def tell_mig(self) -> bool | None:
        """Whether its memory is its slices'; None where it knows no slices. Raises DeviceLost."""
        modes = self.ask(pynvml.nvmlDeviceGetMigMode)
        enabled = modes[0] == pynvml.NVML_DEVICE_MIG_ENABLE if modes else None
        if enabled is not None and enabled is not self.mig_enabled:
            # The mode decides what a card answers: what it refused for good it may tell now.
            self.refused.clear()
            self.mig_enabled = enabled
        return enabled

    def list_kind(
        self, kind: ProcessKind, calls: tuple[Callable[..., Any], ...]
    ) -> list[Any] | None:
        """Its processes of a kind, by the newest call that answers; None where it never says.

        Raises DeviceLost, and ListRefused where it may say another time.
        """
        for call in calls:
            listed: list[Any] | None = self.ask(call)
            if listed is not None:
                self.lists.add(kind)
                return listed
        may_pass = any(self.refused.get((call,), 0) < _NEVER_AGAIN for call in calls)
        if may_pass and (kind is ProcessKind.COMPUTE or kind in self.lists):
            raise ListRefused(uuid=self.uuid, reason=f"it refused those of kind {kind.value}")
        return None

    def _next_try(self, function: Callable[..., Any], error: pynvml.NVMLError) -> int:
        if error.value in _FOR_EVER:
            return _NEVER_AGAIN
        # Nothing can be granted without the memory figures, and nothing comes back without lists:
        # those are asked for at every read.
        is_vital = function in _VITAL
        return self.reads + (1 if is_vital else RETRY_REFUSED_AFTER_READS)


@dataclass(frozen=True, slots=True)
class _Memory:
    """Bytes; `reserved` None where the driver does not tell it apart from `used`."""

    total: int
    used: int
    reserved: int | None


class NvmlDriver:
    """NVML, initialised. Raises DriverUnavailable from the constructor, which may take seconds.

    `known`: devices described before, which are not described again. `untouched`: UUIDs of such
    that get no call beyond the one that finds them; it is read again at each discovery.
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
        self._cards: dict[str, _Card] = {}
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
        """Every cheap field. A MIG slice has only memory; the rest is its card's."""
        card = self._card(uuid)
        card.reads += 1
        memory = _read_memory(card)
        figures = Readings(
            memory_used_bytes=memory.used if memory else None,
            memory_driver_reserved_bytes=memory.reserved if memory else None,
        )
        if self._infos[uuid].kind is DeviceKind.MIG:
            return figures
        utilization = card.ask(pynvml.nvmlDeviceGetUtilizationRates)
        return replace(
            figures,
            utilization_percent=float(utilization.gpu) if utilization else None,
            memory_utilization_percent=float(utilization.memory) if utilization else None,
            temperature_celsius=_number(
                card.ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
            ),
            power_watts=_watts(card.ask(pynvml.nvmlDeviceGetPowerUsage)),
            power_limit_watts=_watts(card.ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)),
            fan_percent=_number(card.ask(pynvml.nvmlDeviceGetFanSpeed)),
            sm_clock_mhz=card.ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=card.ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
            compute_mode=_COMPUTE_MODES.get(card.ask(pynvml.nvmlDeviceGetComputeMode)),
            mig_enabled=card.tell_mig(),
        )

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Compute, MPS and graphics processes, each once. None: compute ones never are told."""
        card = self._card(uuid)
        merged: dict[int, ProcessUse] = {}
        for kind, calls in _PROCESS_LISTS:
            listed = card.list_kind(kind, calls)
            if listed is None and kind is ProcessKind.COMPUTE:
                return None
            for entry in listed or ():
                merged[entry.pid] = self._merge(merged.get(entry.pid), entry, kind)
        return tuple(merged.values())

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
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _card(self, uuid: str) -> _Card:
        card = self._cards.get(uuid)
        if card is None:
            raise DeviceLost(uuid=uuid, reason=NO_LONGER_LISTED)
        return card

    def _find(self, index: int, asking: Asking) -> Iterator[_Card]:
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

    def _keep(self, uuid: str, handle: Any, parent: _Card | None) -> _Card:
        """The card of this handle, described when it is new or its memory was not known."""
        card = self._cards.get(uuid) or _Card(uuid, handle)
        card.handle = handle
        info = self._infos.get(uuid)
        if info is None:
            info = self._describe(card, parent)
        elif info.memory_total_bytes is None and uuid not in self._untouched:
            memory = _read_memory(card)
            info = replace(info, memory_total_bytes=memory.total if memory else None)
        self._infos[uuid] = info
        return card

    def _describe(self, card: _Card, parent: _Card | None) -> DeviceInfo:
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


def _told_nearness(card: _Card) -> Nearness:
    """What NVML itself says is nearest; several memory nodes at once are no answer."""
    scope = pynvml.NVML_AFFINITY_SCOPE_NODE
    memory = members(card.ask(pynvml.nvmlDeviceGetMemoryAffinity, NODE_WORDS, scope) or ())
    cpus = members(card.ask(pynvml.nvmlDeviceGetCpuAffinity, CPU_WORDS) or ())
    return Nearness(
        memory_node=min(memory) if len(memory) == 1 else None, cpus=format_cpus(cpus) or None
    )


def _read_memory(card: _Card) -> _Memory | None:
    """Memory v2, which tells the driver's own share apart, else v1."""
    for version in (pynvml.nvmlMemory_v2, None):
        arguments = (version,) if version else ()
        figures = card.ask(pynvml.nvmlDeviceGetMemoryInfo, *arguments)
        if figures:
            return _Memory(figures.total, figures.used, figures.reserved if version else None)
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


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
