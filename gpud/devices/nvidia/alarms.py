"""Xids as the driver reports them, through an NVML event set that is never waited for."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from typing import Any

import pynvml

from gpud.devices.nvidia.card import FOR_EVER, address

# More at once than any card reports in a tick; what is left comes with the next call.
MAX_AT_ONCE = 256


class Alarms:
    """The errors of all cards that can report them, of a card that hangs as well.

    Any thread may drain it; while one is at it, the others get nothing.
    """

    def __init__(self) -> None:
        self._set: Any | None = None
        self._uuids: dict[int, str] = {}
        self._refused: set[str] = set()
        self._draining = threading.Lock()

    def watch(self, uuid: str, handle: Any) -> bool:
        """Hear of this card's Xids from now on; whether its driver reports them.

        A card that does not answer that, being lost, is asked again with the next list.
        """
        if uuid in self._refused or uuid in self._uuids.values():
            return uuid not in self._refused
        wanted = pynvml.nvmlEventTypeXidCriticalError
        try:
            if pynvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                if self._set is None:
                    self._set = pynvml.nvmlEventSetCreate()
                pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
                self._uuids[address(handle)] = uuid
                return True
        except pynvml.NVMLError as error:
            if error.value not in FOR_EVER:
                return False
        self._refused.add(uuid)
        return False

    def drain(self) -> tuple[tuple[str, int], ...]:
        """What was reported since the last call, as (UUID, Xid)."""
        if self._set is None or not self._draining.acquire(blocking=False):
            return ()
        found: list[tuple[str, int]] = []
        try:
            wait = pynvml._nvmlGetFunctionPointer("nvmlEventSetWait_v2")  # noqa: SLF001
            data = pynvml.c_nvmlEventData_t()
            # Not by the binding: to be told that there is none, as nearly always, raises there.
            # "timeout" says that there is no more; a card that is lost says so when it is read.
            while (
                len(found) < MAX_AT_ONCE
                and wait(self._set, ctypes.byref(data), 0) == pynvml.NVML_SUCCESS
            ):
                if data.eventType & pynvml.nvmlEventTypeXidCriticalError:
                    found.append((self._uuid_of(data.device), int(data.eventData)))
        except pynvml.NVMLError:
            pass  # a card that does not even tell who it is says so when it is read
        finally:
            self._draining.release()
        return tuple(found)

    def _uuid_of(self, handle: Any) -> str:
        """By the handle, for a card that is lost does not tell its UUID; else by asking it."""
        known = self._uuids.get(address(handle))
        return known if known is not None else str(pynvml.nvmlDeviceGetUUID(handle))

    def close(self) -> None:
        """Hear of nothing any more."""
        if self._set is not None:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._set)
        self._set = None
        self._uuids.clear()
