"""What is dear to read, or hardly moves: read now and then, and told unchanged in between."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pynvml

from gpud.devices.nvidia import calls
from gpud.devices.nvidia.card import NEVER_AGAIN, Card
from gpud.devices.nvidia.fields import NVLINK_RECEIVED, NVLINK_SENT, Field, read_fields
from gpud.devices.snapshot import Readings
from gpud.devices.verdict.throttling import reasons_of

# Numbers of fields (NVML_FI_DEV_…, nvml.h); by number, for older bindings lack the newest names.
_ECC_CURRENT, _ECC_SBE_VOLATILE, _ECC_DBE_VOLATILE = 1, 3, 4
_RETIRED_SBE, _RETIRED_DBE = 29, 30
_MEMORY_TEMPERATURE, _ENERGY_MILLIJOULES = 82, 83
_PCIE_REPLAYS = 94
_REMAPPED_CORRECTED, _REMAPPED_UNCORRECTED, _REMAP_PENDING, _REMAP_FAILED = 142, 143, 144, 145
# Bytes since some start; they may wrap.
_PCIE_SENT, _PCIE_RECEIVED = 197, 198
_RECOVERY_ACTION = 230
# Errors of all links together: flow control, data, replays, recoveries.
_LINK_ERRORS = (38, 45, 52, 59)
_FIELDS = (
    *(_ECC_CURRENT, _ECC_SBE_VOLATILE, _ECC_DBE_VOLATILE, _RETIRED_SBE, _RETIRED_DBE),
    *(_MEMORY_TEMPERATURE, _ENERGY_MILLIJOULES, _PCIE_REPLAYS),
    *(_REMAPPED_CORRECTED, _REMAPPED_UNCORRECTED, _REMAP_PENDING, _REMAP_FAILED),
    *(_PCIE_SENT, _PCIE_RECEIVED, _RECOVERY_ACTION, *_LINK_ERRORS),
    *(NVLINK_SENT, NVLINK_RECEIVED),
)
# nvmlDeviceGpuRecoveryAction_t, in its order.
_RECOVERY_ACTIONS = (
    "none",
    "reset",
    "reboot",
    "drain_p2p",
    "drain_and_reset",
    "recover_imex_domain",
    "bus_reset",
    "system_reboot",
)
# Where the counters are refused, NVML measures for 20 ms while we wait: once in so many times.
_MEASURE_EVERY = 12
_UNKNOWN_PERFORMANCE_STATE = 32
NOTHING: Mapping[str, Any] = MappingProxyType({})
COMPUTE_MODES = {
    pynvml.NVML_COMPUTEMODE_DEFAULT: "default",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD: "exclusive_thread",
    pynvml.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive_process",
}


class Quick(NamedTuple):
    """What is read at each tick, as NVML tells it; None where it does not."""

    used_bytes: int | None
    reserved_bytes: int | None
    gpu_percent: int | None
    memory_percent: int | None
    celsius: int | None
    milliwatts: int | None
    sm_clock_mhz: int | None
    compute_mode: int | None
    mig_enabled: bool | None
    throttling: int | None


class Rare:
    """The rare readings of one card, by their names in Readings."""

    def __init__(self, card: Card) -> None:
        self.values: Mapping[str, Any] = NOTHING
        self.card = card
        self._times = 0
        self._counters: dict[int, Field] = {}
        self._links = 0
        self._quick: Quick | None = None  # what the newest readings were made of
        self._readings = Readings()

    def beside(self, quick: Quick) -> Readings:
        """All readings: the very same as before where all figures are, as of a card at rest."""
        if quick != self._quick:
            self._quick = quick
            throttling = quick.throttling
            self._readings = self._readings.changed(
                memory_used_bytes=quick.used_bytes,
                memory_driver_reserved_bytes=quick.reserved_bytes,
                utilization_percent=scaled(quick.gpu_percent),
                memory_utilization_percent=scaled(quick.memory_percent),
                temperature_celsius=scaled(quick.celsius),
                power_watts=scaled(quick.milliwatts, 1000),
                sm_clock_mhz=quick.sm_clock_mhz,
                compute_mode=COMPUTE_MODES.get(quick.compute_mode),
                mig_enabled=quick.mig_enabled,
                throttle_reasons=None if throttling is None else reasons_of(throttling),
            )
        return self._readings

    def refresh(self) -> None:
        """Read them all. Raises DeviceLost."""
        fields = read_fields(self.card, _FIELDS)
        self.values = {
            **self._plain(),
            **_of_fields(fields),
            **self._pcie_rates(fields),
            **self._nvlink(fields),
        }
        self._quick, self._readings = None, Readings(**self.values)
        self._times += 1

    def _plain(self) -> dict[str, Any]:
        ask, number = self.card.ask, self.card.number
        encoder = ask(pynvml.nvmlDeviceGetEncoderUtilization)
        decoder = ask(pynvml.nvmlDeviceGetDecoderUtilization)
        state = number(calls.PERFORMANCE_STATE)
        return {
            "memory_clock_mhz": number(calls.MEMORY_CLOCK),
            "performance_state": None if state == _UNKNOWN_PERFORMANCE_STATE else state,
            "power_limit_watts": scaled(number(calls.POWER_LIMIT), 1000),
            "fan_percent": scaled(number(calls.FAN)),
            "video_clock_mhz": number(calls.VIDEO_CLOCK),
            "encoder_percent": scaled(encoder[0] if encoder else None),
            "decoder_percent": scaled(decoder[0] if decoder else None),
            "pcie_generation": number(calls.PCIE_GENERATION),
            "pcie_width": number(calls.PCIE_WIDTH),
        }

    def _pcie_rates(self, fields: Mapping[int, Field]) -> dict[str, float | None]:
        names = {
            "pcie_sent_bytes_per_second": (_PCIE_SENT, pynvml.NVML_PCIE_UTIL_TX_BYTES),
            "pcie_received_bytes_per_second": (_PCIE_RECEIVED, pynvml.NVML_PCIE_UTIL_RX_BYTES),
        }
        # One of both at a time, so that nobody waits for 40 ms.
        turn = list(names)[self._times // _MEASURE_EVERY % 2]
        rates: dict[str, float | None] = {}
        for name, (id_, counter) in names.items():
            if id_ in fields:
                rates[name] = self._rate(id_, fields[id_])
                continue
            rates[name] = self.values.get(name)
            if name == turn and self._measures(id_):
                kib = self.card.ask(pynvml.nvmlDeviceGetPcieThroughput, counter)
                rates[name] = None if kib is None else kib * 1024.0
        return rates

    def _measures(self, id_: int) -> bool:
        """Whether this is a time to measure it, there being no counter."""
        refused = self.card.refused.get((pynvml.nvmlDeviceGetFieldValues, id_), 0)
        return refused == NEVER_AGAIN and self._times % _MEASURE_EVERY == _MEASURE_EVERY - 1

    def _rate(self, id_: int, now: Field) -> float | None:
        """What it grew by in a second; None at first, and where the counter wrapped."""
        last = self._counters.get(id_)
        self._counters[id_] = now
        if last is None or now.micros <= last.micros or now.value < last.value:
            return None
        return (now.value - last.value) / (now.micros - last.micros) * 1e6

    def _nvlink(self, fields: Mapping[int, Field]) -> dict[str, Any]:
        if not self._links:
            self._links = self._count_links()
        if not self._links:
            return {}
        states = [self.card.number(link) for link in calls.NVLINK_STATES[: self._links]]
        known = [state for state in states if state is not None]
        errors = [fields[id_].value for id_ in _LINK_ERRORS if id_ in fields]
        sent, received = (
            self._rate(id_, fields[id_]) if id_ in fields else None
            for id_ in (NVLINK_SENT, NVLINK_RECEIVED)
        )
        return {
            "nvlink_active_count": sum(1 for state in known if state) if known else None,
            "nvlink_error_count": int(sum(errors)) if errors else None,
            # They count KiB.
            "nvlink_sent_bytes_per_second": scaled(sent, 1 / 1024),
            "nvlink_received_bytes_per_second": scaled(received, 1 / 1024),
        }

    def _count_links(self) -> int:
        """How many it has: it refuses the state of those that it lacks."""
        for count, link in enumerate(calls.NVLINK_STATES):
            if self.card.number(link) is None:
                return count
        return len(calls.NVLINK_STATES)


def scaled(value: float | None, divisor: float = 1.0) -> float | None:
    """As a number with a fraction, unknown staying unknown."""
    return None if value is None else value / divisor


def _of_fields(fields: Mapping[int, Field]) -> dict[str, Any]:
    def count(id_: int) -> int | None:
        return int(fields[id_].value) if id_ in fields else None

    def flag(id_: int) -> bool | None:
        return bool(fields[id_].value) if id_ in fields else None

    retired = [size for size in (count(_RETIRED_SBE), count(_RETIRED_DBE)) if size is not None]
    action = count(_RECOVERY_ACTION)
    told = action is not None and 0 <= action < len(_RECOVERY_ACTIONS)
    # A card without such a sensor tells 0.
    celsius = count(_MEMORY_TEMPERATURE) or None
    return {
        "memory_temperature_celsius": scaled(celsius),
        "energy_joules": scaled(count(_ENERGY_MILLIJOULES), 1000),
        "ecc_enabled": flag(_ECC_CURRENT),
        "ecc_corrected_count": count(_ECC_SBE_VOLATILE),
        "ecc_uncorrected_count": count(_ECC_DBE_VOLATILE),
        "remapped_corrected_count": count(_REMAPPED_CORRECTED),
        "remapped_uncorrected_count": count(_REMAPPED_UNCORRECTED),
        "remap_pending": flag(_REMAP_PENDING),
        "remap_failed": flag(_REMAP_FAILED),
        "retired_page_count": sum(retired) if retired else None,
        "pcie_replay_count": count(_PCIE_REPLAYS),
        "recovery_action": _RECOVERY_ACTIONS[action or 0] if told else None,
    }
