"""NVML's numbered fields as they lie in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from gpud.devices.driver import DeviceLost
from gpud.devices.nvidia.card import NEVER_AGAIN, RETRY_REFUSED_AFTER_READS, Card
from gpud.devices.nvidia.fields import Field, read_fields
from tests.devices.standin import bind

SET = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: ("dVal", 1.5),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: ("uiVal", 2**32 - 1),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: ("ulVal", 2**40),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: ("ullVal", 2**63 + 1),
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: ("sllVal", -(2**40)),
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: ("siVal", -7),
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: ("usVal", 65535),
}


class Library:
    """Answers the binding's one call; the binding itself makes and fills the memory."""

    def __init__(self) -> None:
        self.outcomes: dict[int, int] = {}
        self.types: dict[int, int] = {}
        self.asked: list[list[int]] = []

    def nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> int:  # noqa: N802
        array = values._obj
        self.asked.append([entry.fieldId for entry in array])
        for entry in array:
            entry.nvmlReturn = self.outcomes.get(entry.fieldId, pynvml.NVML_SUCCESS)
            entry.timestamp = 123456789012345
            # What lay there before shows around a shorter value.
            entry.value.ullVal = 0xAAAAAAAAAAAAAAAA
            entry.valueType = self.types.get(entry.fieldId, 3)
            member, number = SET[entry.valueType]
            setattr(entry.value, member, number)
        return int(pynvml.NVML_SUCCESS)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    bind(monkeypatch, made)
    return made


def card() -> Card:
    return Card("GPU-a", SimpleNamespace(), reads=1)


@pytest.mark.parametrize("type_", SET)
def test_each_type_of_value(library: Library, type_: int) -> None:
    library.types = {83: type_}
    assert read_fields(card(), (83,)) == {83: Field(SET[type_][1], 123456789012345)}


def test_what_is_refused_for_good_is_left_out_and_the_rest_asked_again(library: Library) -> None:
    asked = card()
    library.outcomes = {
        1: pynvml.NVML_ERROR_NOT_SUPPORTED,
        2: pynvml.NVML_ERROR_INVALID_ARGUMENT,  # newer than the driver
        3: pynvml.NVML_ERROR_UNKNOWN,
    }
    assert list(read_fields(asked, (1, 2, 3, 4))) == [4]
    assert list(read_fields(asked, (1, 2, 3, 4))) == [4]
    asked.reads += RETRY_REFUSED_AFTER_READS
    read_fields(asked, (1, 2, 3, 4))
    assert library.asked == [[1, 2, 3, 4], [4], [3, 4]]
    known = {key[1]: until for key, until in asked.refused.items()}
    assert known[1] == known[2] == NEVER_AGAIN


def test_a_field_of_a_lost_card_says_so(library: Library) -> None:
    library.outcomes = {4: pynvml.NVML_ERROR_GPU_IS_LOST}
    with pytest.raises(DeviceLost):
        read_fields(card(), (3, 4))


def test_nothing_left_is_nothing_asked(library: Library) -> None:
    library.outcomes = {1: pynvml.NVML_ERROR_NOT_SUPPORTED}
    asked = card()
    assert (read_fields(asked, (1,)), read_fields(asked, (1,))) == ({}, {})
    assert library.asked == [[1]]
