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

from gpud.devices.driver import NVML, Aliases, DeviceLost, DriverUnavailable
from gpud.devices.processes import ProcessTable
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings

PCI_DEVICES = Path("/sys/bus/pci/devices")
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


@dataclass(slots=True)
class _Card:
    """One handle, and what it will not answer: the call → the read from which to ask again."""

    uuid: str
    handle: Any
    reads: int = 0
    refused: dict[tuple[Any, ...], int] = field(default_factory=dict)

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

    def _next_try(self, function: Callable[..., Any], error: pynvml.NVMLError) -> int:
        if error.value in _FOR_EVER:
            return _NEVER_AGAIN
        # Nothing can be granted without the memory figures: those are asked for at every read.
        is_vital = function is pynvml.nvmlDeviceGetMemoryInfo
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
    ) -> None:
        self._table = table
        self._aliases = aliases
        self._infos = {info.uuid: info for info in known}
        self._untouched = untouched
        self._cards: dict[str, _Card] = {}
        try:
            pynvml.nvmlInit()
            self._driver_version = _text(pynvml.nvmlSystemGetDriverVersion)
        except pynvml.NVMLError as error:
            raise _unavailable(error) from error

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Cards in NVML's order, each followed by its slices. Raises DriverUnavailable."""
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise _unavailable(error) from error
        self._cards = {card.uuid: card for index in range(count) for card in self._find(index)}
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
            mig_enabled=_mig_enabled(card),
        )

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Compute, MPS and graphics processes, each once. None when compute ones are refused."""
        card = self._card(uuid)
        merged: dict[int, ProcessUse] = {}
        for kind, calls in _PROCESS_LISTS:
            listed = _first_answer(card, calls)
            if listed is None and kind is ProcessKind.COMPUTE:
                return None
            for entry in listed or ():
                merged[entry.pid] = self._merge(merged.get(entry.pid), entry, kind)
        return tuple(merged.values())

    def close(self) -> None:
        """Shut NVML down."""
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _card(self, uuid: str) -> _Card:
        card = self._cards.get(uuid)
        if card is None:
            raise DeviceLost(uuid=uuid, reason="the driver no longer lists it")
        return card

    def _find(self, index: int) -> Iterator[_Card]:
        """The card of that index and its slices; nothing when it does not even tell its UUID."""
        try:
            card = self._keep(pynvml.nvmlDeviceGetHandleByIndex(index), None)
            yield card
            if card.uuid in self._untouched or not _mig_enabled(card):
                return
            slots = card.ask(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0
        except (pynvml.NVMLError, DeviceLost):
            return
        for slot in range(slots):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, slot)
                yield self._keep(handle, card)
            except (pynvml.NVMLError, DeviceLost):
                continue  # an empty slot says "not found"

    def _keep(self, handle: Any, parent: _Card | None) -> _Card:
        """The card of this handle, described when it is new or its memory was not known."""
        uuid = pynvml.nvmlDeviceGetUUID(handle)
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
            numa_node=numa_node(pci_bus_id) if pci_bus_id else None,
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
        )


def numa_node(pci_bus_id: str, devices: Path = PCI_DEVICES) -> int | None:
    """The memory node nearest a card: sysfs knows, in its shorter spelling of the bus id."""
    domain, _, rest = pci_bus_id.lower().partition(":")
    try:
        node = int((devices / f"{domain[-4:]}:{rest}" / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None  # −1: the board does not say


def _read_memory(card: _Card) -> _Memory | None:
    """Memory v2, which tells the driver's own share apart, else v1."""
    for version in (pynvml.nvmlMemory_v2, None):
        arguments = (version,) if version else ()
        figures = card.ask(pynvml.nvmlDeviceGetMemoryInfo, *arguments)
        if figures:
            return _Memory(figures.total, figures.used, figures.reserved if version else None)
    return None


def _first_answer(card: _Card, calls: tuple[Callable[..., Any], ...]) -> list[Any] | None:
    for call in calls:
        listed: list[Any] | None = card.ask(call)
        if listed is not None:
            return listed
    return None


def _mig_enabled(card: _Card) -> bool | None:
    modes = card.ask(pynvml.nvmlDeviceGetMigMode)
    return modes[0] == pynvml.NVML_DEVICE_MIG_ENABLE if modes else None


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
