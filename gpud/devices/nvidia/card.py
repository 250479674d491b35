"""One card or MIG slice to NVML, and the calls that it will not answer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pynvml

from gpud.devices.driver import NEEDS_RESET, DeviceLost, ListRefused
from gpud.devices.nvidia.calls import MEMORY_V2, Call, Prepared
from gpud.devices.snapshot import ProcessKind

# A refusal that may pass is tried again after so many reads; old cards refuse half of the calls.
RETRY_REFUSED_AFTER_READS = 60

NEVER_AGAIN = 1 << 62
FOR_EVER = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_NO_PERMISSION,
    }
)
LOST = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    }
)

# Newest call first: v3 came with driver 510, v2 with 450. A process is named after the first kind
# that lists it, because one that computes and draws is in both lists with all its memory.
PROCESS_LISTS: tuple[tuple[ProcessKind, tuple[Callable[..., Any], ...]], ...] = (
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
# Nothing can be granted without the memory figures, and nothing comes back without lists: those
# are asked for at every read.
_VITAL = frozenset(
    {
        MEMORY_V2,
        pynvml.nvmlDeviceGetMemoryInfo,
        *(call for _, calls in PROCESS_LISTS for call in calls),
    }
)
# (call, its arguments…)
Question = tuple[Any, ...]
_SUCCESS = pynvml.NVML_SUCCESS


def lost_reason(code: int) -> str:
    """Why a card is lost, by the code (of LOST) that a call gave."""
    if code == pynvml.NVML_ERROR_RESET_REQUIRED:
        return NEEDS_RESET
    return str(pynvml.NVMLError(code))


@dataclass(slots=True)
class Card:
    """One handle, and what it will not answer: the question → the read from which to ask again."""

    uuid: str
    handle: Any
    reads: int = 0
    mig_enabled: bool | None = None
    refused: dict[Question, int] = field(default_factory=dict)
    # What it has listed once: that it does not now says nothing of who is there.
    lists: set[ProcessKind] = field(default_factory=set)
    _prepared: dict[Call, Prepared] = field(default_factory=dict)

    def reach(self, handle: Any) -> None:
        """By this handle from now on."""
        if address(handle) != address(self.handle):
            self._prepared.clear()
        self.handle = handle

    def cell(self, call: Call) -> Any | None:
        """Where the call has just written its answer, else as `ask`: None, or DeviceLost."""
        if self.refused and self.refused.get((call,), 0) > self.reads:
            return None
        prepared = self._prepared.get(call)
        if prepared is None:
            try:
                prepared = self._prepared[call] = call.prepared(self.handle)
            except pynvml.NVMLError as error:
                self._failed((call,), error.value)
                return None
        function, arguments, cell = prepared
        code = function(*arguments)
        if code == _SUCCESS:
            return cell
        self._failed((call,), code)
        return None

    def number(self, call: Call) -> int | None:
        """The number that the call tells; as `cell`."""
        cell = self.cell(call)
        return None if cell is None else cell.value

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        """The call's answer, or None if it is refused now or was before. Raises DeviceLost."""
        if self.refused and self.refused.get((function, *arguments), 0) > self.reads:
            return None
        try:
            return function(self.handle, *arguments)
        except pynvml.NVMLError as error:
            self._failed((function, *arguments), error.value)
            return None

    def _failed(self, question: Question, error: int) -> None:
        """Raises DeviceLost where it says that."""
        if error in LOST:
            raise DeviceLost(uuid=self.uuid, reason=lost_reason(error))
        self.refuse(question, error)

    def ask_first(self, calls: Collection[Callable[..., Any]]) -> Any | None:
        """The answer of the first of several names of one call that has one."""
        for call in calls:
            answer = self.ask(call)
            if answer is not None:
                return answer
        return None

    def refuse(self, question: Question, error: int) -> None:
        """Remember that it was refused, for good or for a while."""
        if error in FOR_EVER:
            self.refused[question] = NEVER_AGAIN
            return
        wait = 1 if question[0] in _VITAL else RETRY_REFUSED_AFTER_READS
        self.refused[question] = self.reads + wait

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
        listed: list[Any] | None = self.ask_first(calls)
        if listed is not None:
            self.lists.add(kind)
            return listed
        may_pass = any(self.refused.get((call,), 0) < NEVER_AGAIN for call in calls)
        if may_pass and (kind is ProcessKind.COMPUTE or kind in self.lists):
            raise ListRefused(uuid=self.uuid, reason=f"it refused those of kind {kind.value}")
        return None


def address(handle: Any) -> int:
    """What tells handles apart: NVML gives the same pointer for a card each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
