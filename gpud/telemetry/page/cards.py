"""Pure: what cards show, as columns of the native page and rows for them.

A card here is every device but the host's memory, of which the page tells by `gpud_host_…`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter

from gpud.devices.snapshot import DeviceInfo, DeviceKind, Pressure, Readings, Sample, Thermal
from gpud.devices.verdict.throttling import NAMES, is_throttled
from gpud.ledger.charge import is_current
from gpud.telemetry.page.table import (
    Column,
    Family,
    Labels,
    Number,
    Row,
    Table,
    counter,
    gauge,
    labelled,
)

_MEGA = "%d000000"
_ECC = Family(
    name="gpud_gpu_ecc_errors_total",
    help="ECC errors since the driver was loaded, corrected and not.",
    kind="counter",
)
_REMAPPED = Family(
    name="gpud_gpu_remapped_rows_total",
    help="Rows of memory replaced by spare ones, by what was the cause.",
    kind="counter",
)
_THROTTLE = Family(
    name="gpud_gpu_throttle_active", help="Whether this is a reason why clocks are held down now."
)
_REASONS = tuple(sorted(NAMES))
# Readings that are told as they are: (field, column).
_PLAIN: tuple[tuple[str, Column], ...] = (
    ("memory_used_bytes", gauge("gpud_gpu_memory_used_bytes", "Memory in use, by whomever.")),
    (
        "memory_driver_reserved_bytes",
        gauge("gpud_gpu_memory_driver_reserved_bytes", "Memory that the driver keeps for itself."),
    ),
    ("temperature_celsius", gauge("gpud_gpu_temperature_celsius", "Heat of the chip.")),
    (
        "memory_temperature_celsius",
        gauge("gpud_gpu_memory_temperature_celsius", "Heat of the memory."),
    ),
    ("power_watts", gauge("gpud_gpu_power_watts", "Power drawn now.")),
    ("power_limit_watts", gauge("gpud_gpu_power_limit_watts", "Power that may be drawn.")),
    (
        "energy_joules",
        counter("gpud_gpu_energy_joules_total", "Energy used since the driver was loaded."),
    ),
    (
        "sm_clock_mhz",
        gauge("gpud_gpu_sm_clock_hertz", "Clock of the multiprocessors.", form=_MEGA),
    ),
    ("memory_clock_mhz", gauge("gpud_gpu_memory_clock_hertz", "Clock of the memory.", form=_MEGA)),
    ("video_clock_mhz", gauge("gpud_gpu_video_clock_hertz", "Clock of video.", form=_MEGA)),
    (
        "performance_state",
        gauge("gpud_gpu_performance_state", "P-state: 0 is the fastest, 15 the slowest."),
    ),
    ("mig_enabled", gauge("gpud_gpu_mig_enabled", "Whether it is divided by MIG.", form="%d")),
    ("ecc_enabled", gauge("gpud_gpu_ecc_enabled", "Whether memory errors are mended.", form="%d")),
    ("ecc_corrected_count", Column(family=_ECC, labels='kind="corrected"')),
    ("ecc_uncorrected_count", Column(family=_ECC, labels='kind="uncorrected"')),
    ("remapped_corrected_count", Column(family=_REMAPPED, labels='cause="corrected"')),
    ("remapped_uncorrected_count", Column(family=_REMAPPED, labels='cause="uncorrected"')),
    (
        "remap_pending",
        gauge("gpud_gpu_row_remap_pending", "Whether rows are replaced at a reset.", form="%d"),
    ),
    (
        "remap_failed",
        gauge("gpud_gpu_row_remap_failed", "Whether no spare row is left.", form="%d"),
    ),
    (
        "retired_page_count",
        counter("gpud_gpu_retired_pages_total", "Pages of memory taken out of use."),
    ),
    ("pcie_generation", gauge("gpud_gpu_pcie_generation", "Generation of the PCIe link now.")),
    ("pcie_width", gauge("gpud_gpu_pcie_lanes", "Lanes of the PCIe link now.")),
    ("pcie_replay_count", counter("gpud_gpu_pcie_replays_total", "PCIe packets sent again.")),
    (
        "pcie_sent_bytes_per_second",
        gauge("gpud_gpu_pcie_sent_bytes_per_second", "Bytes that the card sends over PCIe."),
    ),
    (
        "pcie_received_bytes_per_second",
        gauge("gpud_gpu_pcie_received_bytes_per_second", "Bytes that the card gets over PCIe."),
    ),
    ("nvlink_active_count", gauge("gpud_gpu_nvlink_links_active", "NVLinks that are up.")),
    (
        "nvlink_sent_bytes_per_second",
        gauge("gpud_gpu_nvlink_sent_bytes_per_second", "Bytes that the card sends over NVLinks."),
    ),
    (
        "nvlink_received_bytes_per_second",
        gauge(
            "gpud_gpu_nvlink_received_bytes_per_second", "Bytes that the card gets over NVLinks."
        ),
    ),
    ("nvlink_error_count", counter("gpud_gpu_nvlink_errors_total", "Errors on NVLinks.")),
)
# Readings in percent, told as ratios.
_PERCENT: tuple[tuple[str, Column], ...] = (
    (
        "utilization_percent",
        gauge("gpud_gpu_utilization_ratio", "Share of time in which a kernel ran."),
    ),
    (
        "memory_utilization_percent",
        gauge(
            "gpud_gpu_memory_utilization_ratio",
            "Share of time in which memory was read or written.",
        ),
    ),
    ("encoder_percent", gauge("gpud_gpu_encoder_utilization_ratio", "Use of the encoder.")),
    ("decoder_percent", gauge("gpud_gpu_decoder_utilization_ratio", "Use of the decoder.")),
    ("fan_percent", gauge("gpud_gpu_fan_speed_ratio", "Speed of the fan, of what it can do.")),
)
_MOVING: tuple[Column, ...] = (
    gauge("gpud_gpu_memory_free_bytes", "Memory that nobody uses."),
    *(column for _, column in _PERCENT),
    *(column for _, column in _PLAIN),
)
_STEADY: tuple[Column, ...] = (
    gauge("gpud_gpu_memory_total_bytes", "Memory of the card."),
    gauge("gpud_gpu_throttled", "Whether power, heat or the board hold clocks down.", form="%d"),
    *(Column(family=_THROTTLE, labels=f'reason="{name}"', form="%d") for name in _REASONS),
)
_plain: Callable[[Readings], Row] = attrgetter(*(name for name, _ in _PLAIN))
_percent: Callable[[Readings], Row] = attrgetter(*(name for name, _ in _PERCENT))
_NOT_TOLD: Row = (None,) * (1 + len(_REASONS))
_TOTALS = tuple(name for name, column in _PLAIN if column.family.kind == "counter")


class Cards:
    """The part of the page about cards."""

    def __init__(self) -> None:
        self._labels = Labels(labels_of)
        self._moving, self._steady = Table(_MOVING), Table(_STEADY)
        self._xids = Table(
            [counter("gpud_gpu_xid_errors_total", "Xids since the daemon started, by number.")]
        )

    def render(self, samples: Iterable[Sample]) -> str:
        """Of those among them that are cards."""
        cards = [each for each in samples if each.info.kind is not DeviceKind.HOST]
        labels = self._labels.of(tuple([each.info for each in cards]))
        xids = [
            (f'{label},xid="{number}"', count)
            for label, each in zip(labels, cards, strict=True)
            for number, count in sorted((each.xids or {}).items())
        ]
        return "".join(
            (
                self._steady.render(labels, [_steady(each) for each in cards]),
                self._moving.render(labels, [_moving(each) for each in cards]),
                self._xids.render(
                    tuple(label for label, _ in xids), [(count,) for _, count in xids]
                ),
            )
        )


def devices_now(samples: Iterable[Sample], now_boottime: float) -> tuple[Sample, ...]:
    """All of them; one that does not answer, or is stale, with what outlasts its moment alone.

    These are its totals, and that it was last seen too full or too hot for anything to start.
    """
    return tuple(each if is_current(each, now_boottime) else _outlasting(each) for each in samples)


def _outlasting(sample: Sample) -> Sample:
    return replace(
        sample,
        readings=Readings(**{name: getattr(sample.readings, name) for name in _TOTALS}),
        processes=None,
        pressure=sample.pressure if sample.pressure is Pressure.CRITICAL else None,
        thermal=sample.thermal if sample.thermal is Thermal.CRITICAL else None,
    )


def labels_of(info: DeviceInfo) -> str:
    """Which device it is."""
    return labelled(device=info.alias, uuid=info.uuid)


def _moving(sample: Sample) -> Row:
    readings = sample.readings
    total, used = sample.info.memory_total_bytes, readings.memory_used_bytes
    free = None if total is None or used is None else max(0, total - used)
    shares = [None if each is None else each / 100 for each in _percent(readings)]
    return (free, *shares, *_plain(readings))


def _steady(sample: Sample) -> Row:
    reasons = sample.readings.throttle_reasons
    held = _NOT_TOLD if reasons is None else _held(reasons)
    return (sample.info.memory_total_bytes, *held)


@lru_cache(maxsize=64)
def _held(reasons: tuple[str, ...]) -> tuple[Number, ...]:
    """Whether it is throttled, then each of the reasons."""
    return (is_throttled(reasons), *(name in reasons for name in _REASONS))
