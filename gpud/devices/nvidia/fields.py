"""NVML's numbered fields: many readings of one card in one call, each refused for itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pynvml

from gpud.devices.driver import DeviceLost
from gpud.devices.nvidia.card import LOST, Card

_MEMBERS = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


class Field(NamedTuple):
    """A value, and when the driver took it (microseconds since the epoch, 0: it does not say)."""

    value: float
    micros: int


def read_fields(card: Card, ids: Iterable[int]) -> dict[int, Field]:
    """The fields that it tells, by number. Raises DeviceLost.

    A number that the driver does not know yet is refused for good, like one that the card lacks.
    """
    call = pynvml.nvmlDeviceGetFieldValues
    asked = tuple(id_ for id_ in ids if card.refused.get((call, id_), 0) <= card.reads)
    if not asked:
        return {}
    told: dict[int, Field] = {}
    for entry in card.ask(call, asked) or ():
        outcome = entry.nvmlReturn
        if outcome == pynvml.NVML_SUCCESS:
            told[entry.fieldId] = Field(_value(entry), entry.timestamp)
        elif outcome in LOST:
            raise DeviceLost(uuid=card.uuid, reason=str(pynvml.NVMLError(outcome)))
        elif outcome == pynvml.NVML_ERROR_INVALID_ARGUMENT:
            card.refuse((call, entry.fieldId), pynvml.NVML_ERROR_NOT_SUPPORTED)
        else:
            card.refuse((call, entry.fieldId), outcome)
    return told


def _value(entry: Any) -> float:
    member = _MEMBERS.get(entry.valueType, "ullVal")
    number: float = getattr(entry.value, member)
    return number
