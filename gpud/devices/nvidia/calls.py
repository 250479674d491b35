"""NVML's calls that write one value, each made once for a card and then only called.

The binding looks every name up and makes every cell and argument anew at each call, which takes
longer than the call itself; these are made for each card at each tick.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A function of NVML, what it is asked beside the handle, and what it writes into."""

    name: str
    arguments: tuple[int, ...] = ()
    make: Callable[[], Any] = ctypes.c_uint

    def prepared(self, handle: Any) -> Prepared:
        """For a card; one thread at a time may use it. Raises NVMLError where there is none."""
        function = pynvml._nvmlGetFunctionPointer(self.name)  # noqa: SLF001
        cell = self.make()
        return function, (handle, *self.arguments, ctypes.byref(cell)), cell


# The function, its arguments, and where its answer is found.
Prepared = tuple[Callable[..., int], tuple[Any, ...], Any]

# nvmlMemory_v2_t: version, total, reserved, free, used. nvmlUtilization_t: of the card, of its
# memory (nvml.h).
MEMORY_V2_LAYOUT = struct.Struct("@IQQQQ")
UTILIZATION_LAYOUT = struct.Struct("@II")


def _memory_v2() -> Any:
    unfilled = MEMORY_V2_LAYOUT.pack(pynvml.nvmlMemory_v2, 0, 0, 0, 0)
    return (ctypes.c_char * MEMORY_V2_LAYOUT.size).from_buffer_copy(unfilled)


MEMORY_V2 = Call("nvmlDeviceGetMemoryInfo_v2", make=_memory_v2)
UTILIZATION = Call("nvmlDeviceGetUtilizationRates", make=ctypes.c_uint * 2)
TEMPERATURE = Call("nvmlDeviceGetTemperature", (pynvml.NVML_TEMPERATURE_GPU,))
POWER = Call("nvmlDeviceGetPowerUsage")
SM_CLOCK = Call("nvmlDeviceGetClockInfo", (pynvml.NVML_CLOCK_SM,))
COMPUTE_MODE = Call("nvmlDeviceGetComputeMode")
# Renamed with driver 535.
THROTTLING = (
    Call("nvmlDeviceGetCurrentClocksEventReasons", make=ctypes.c_ulonglong),
    Call("nvmlDeviceGetCurrentClocksThrottleReasons", make=ctypes.c_ulonglong),
)
MEMORY_CLOCK = Call("nvmlDeviceGetClockInfo", (pynvml.NVML_CLOCK_MEM,))
VIDEO_CLOCK = Call("nvmlDeviceGetClockInfo", (pynvml.NVML_CLOCK_VIDEO,))
PERFORMANCE_STATE = Call("nvmlDeviceGetPerformanceState")
POWER_LIMIT = Call("nvmlDeviceGetEnforcedPowerLimit")
FAN = Call("nvmlDeviceGetFanSpeed")
PCIE_GENERATION = Call("nvmlDeviceGetCurrPcieLinkGeneration")
PCIE_WIDTH = Call("nvmlDeviceGetCurrPcieLinkWidth")
NVLINK_STATES = tuple(
    Call("nvmlDeviceGetNvLinkState", (link,)) for link in range(pynvml.NVML_NVLINK_MAX_LINKS)
)
