"""NVML's calls as they are made directly: by whose handle, what is refused, what is lost."""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml
import pytest

from gpud.devices.driver import DeviceLost
from gpud.devices.nvidia.calls import FAN, POWER, Call
from gpud.devices.nvidia.card import RETRY_REFUSED_AFTER_READS, Card
from gpud.devices.nvidia.rare import Quick, Rare
from tests.devices.standin import bind

LINKS = Call("links", (3,))


class Library:
    """Tells watts by the handle; what it is to refuse says the test."""

    def __init__(self) -> None:
        self.outcome = pynvml.NVML_SUCCESS
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == FAN.name:
            raise AttributeError(name)

        def call(handle: Any, *arguments: Any) -> int:
            self.asked.append(name)
            *given, cell = arguments
            cell._obj.value = handle.value + sum(given)
            return self.outcome

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    bind(monkeypatch, made)
    return made


def test_a_call_goes_by_the_newest_handle(library: Library) -> None:
    card = Card("GPU-a", ctypes.c_void_p(7))
    assert (card.number(POWER), card.number(LINKS)) == (7, 10)
    card.reach(ctypes.c_void_p(9))
    assert (card.number(POWER), card.number(LINKS)) == (9, 12)


def test_what_is_refused_for_now_is_asked_again_later(library: Library) -> None:
    card = Card("GPU-a", ctypes.c_void_p(7))
    library.outcome = pynvml.NVML_ERROR_UNKNOWN
    assert card.number(POWER) is None
    library.outcome = pynvml.NVML_SUCCESS
    card.reads += 1
    assert card.number(POWER) is None
    assert library.asked == [POWER.name]
    card.reads += RETRY_REFUSED_AFTER_READS
    assert card.number(POWER) == 7


def test_a_function_that_the_library_lacks_is_not_looked_for_again(library: Library) -> None:
    card = Card("GPU-a", ctypes.c_void_p(7))
    assert card.number(FAN) is None
    card.reads += 10 * RETRY_REFUSED_AFTER_READS
    assert (FAN,) in card.refused
    assert card.number(FAN) is None


def test_a_card_that_is_gone_is_lost(library: Library) -> None:
    library.outcome = pynvml.NVML_ERROR_GPU_IS_LOST
    with pytest.raises(DeviceLost):
        Card("GPU-a", ctypes.c_void_p(7)).number(POWER)


def test_readings_are_the_very_same_while_all_figures_are() -> None:
    rare = Rare(Card("GPU-a", ctypes.c_void_p(7)))
    quick = Quick(1, 2, 3, 4, 5, 6000, 7, 0, None, 1)
    first = rare.beside(quick)
    assert rare.beside(quick._replace()) is first
    warmer = rare.beside(quick._replace(celsius=50))
    assert (warmer.temperature_celsius, warmer.power_watts) == (50.0, 6.0)
    assert warmer.changed(temperature_celsius=5.0) == first
