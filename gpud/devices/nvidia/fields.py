"""NVML's numbered fields: many readings of one card in one call, each refused for itself."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import pynvml

from gpud.devices.driver import DeviceLost
from gpud.devices.nvidia.card import LOST, Card, lost_reason

# nvmlFieldValue_t (nvml.h): field, scope, micros, latency, type, outcome, value. Read from its
# bytes: the binding looks each part of each value up by name, which takes thirty times as long.
_VALUE = struct.Struct("@IIqqiiQ")
_MASKS = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: (1 << 32) - 1,
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: (1 << 16) - 1,
}
_SIGNED_BITS = {
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: 32,
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: 64,
}
# NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and …_RX count each link apart, or all of them together.
NVLINK_SENT, NVLINK_RECEIVED = 138, 139
_ALL_LINKS = (1 << 32) - 1
_SCOPES = {NVLINK_SENT: _ALL_LINKS, NVLINK_RECEIVED: _ALL_LINKS}


class Field(NamedTuple):
    """A value, and when the driver took it (microseconds since the epoch, 0: it does not say)."""

    value: float
    micros: int


def read_fields(card: Card, ids: Iterable[int]) -> dict[int, Field]:
    """The fields that it tells, by number. Raises DeviceLost.

    A number that the driver does not know yet is refused for good, like one that the card lacks.
    """
    call, refused = pynvml.nvmlDeviceGetFieldValues, card.refused
    asked = tuple(id_ for id_ in ids if refused.get((call, id_), 0) <= card.reads)
    values = card.ask(_values_of, asked) if asked else None
    if values is None:
        return {}
    told: dict[int, Field] = {}
    for id_, _, micros, _, type_, outcome, bits in _VALUE.iter_unpack(bytes(values)):
        if outcome == pynvml.NVML_SUCCESS:
            told[id_] = Field(_number(type_, bits), micros)
        elif outcome in LOST:
            raise DeviceLost(uuid=card.uuid, reason=lost_reason(outcome))
        else:
            is_unknown = outcome == pynvml.NVML_ERROR_INVALID_ARGUMENT
            card.refuse((call, id_), pynvml.NVML_ERROR_NOT_SUPPORTED if is_unknown else outcome)
    return told


def _values_of(handle: Any, ids: tuple[int, ...]) -> Any:
    """As pynvml.nvmlDeviceGetFieldValues, which takes three times as long to write the numbers."""
    values = (pynvml.c_nvmlFieldValue_t * len(ids)).from_buffer_copy(_unfilled(ids))
    call = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")  # noqa: SLF001
    pynvml._nvmlCheckReturn(call(handle, len(ids), ctypes.byref(values)))  # noqa: SLF001
    return values


@lru_cache(maxsize=64)
def _unfilled(ids: tuple[int, ...]) -> bytes:
    return b"".join(_VALUE.pack(id_, _SCOPES.get(id_, 0), 0, 0, 0, 0, 0) for id_ in ids)


def _number(type_: int, bits: int) -> float:
    """What the eight bytes of a value mean, by its type."""
    if type_ == pynvml.NVML_VALUE_TYPE_DOUBLE:
        number: float = struct.unpack("@d", struct.pack("@Q", bits))[0]
        return number
    signed = _SIGNED_BITS.get(type_)
    if signed is not None:
        bits &= (1 << signed) - 1
        return bits - (1 << signed) if bits >> (signed - 1) else bits
    return bits & _MASKS.get(type_, -1)
