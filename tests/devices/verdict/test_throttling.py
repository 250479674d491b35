"""Why clocks are held down."""

from __future__ import annotations

import pynvml
import pytest

from gpud.devices.verdict.throttling import is_by_heat, is_throttled, reasons_of


@pytest.mark.parametrize(
    ("bits", "reasons", "throttled", "heat"),
    [
        (pynvml.nvmlClocksEventReasonNone, (), False, False),
        (pynvml.nvmlClocksEventReasonGpuIdle, ("idle",), False, False),
        (
            pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
            ("application_clocks",),
            False,
            False,
        ),
        (pynvml.nvmlClocksEventReasonSwPowerCap, ("power_cap",), True, False),
        (pynvml.nvmlClocksEventReasonHwSlowdown, ("hardware_slowdown",), True, True),
        (
            pynvml.nvmlClocksEventReasonHwSlowdown
            | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
            ("hardware_slowdown", "power_brake"),
            True,
            False,
        ),
        (pynvml.nvmlClocksEventReasonSyncBoost, ("sync_boost",), False, False),
        (pynvml.nvmlClocksEventReasonSwThermalSlowdown, ("thermal",), True, True),
        (pynvml.nvmlClocksEventReasonHwThermalSlowdown, ("hardware_thermal",), True, True),
        (pynvml.nvmlClocksEventReasonDisplayClockSetting, ("display_clocks",), False, False),
        (1 << 40, (), False, False),
    ],
)
def test_bits_by_name(bits: int, reasons: tuple[str, ...], throttled: bool, heat: bool) -> None:
    assert reasons_of(bits) == reasons
    assert (is_throttled(reasons), is_by_heat(reasons)) == (throttled, heat)


def test_what_is_not_told_is_unknown() -> None:
    assert is_throttled(None) is None
    assert not is_by_heat(None)
