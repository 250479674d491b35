"""Pure: the page at /metrics/dcgm: cards by the names, labels and units of dcgm-exporter.

So that dashboards and rules made for it work unchanged. It breaks Prometheus' own rules for names,
which is why it is a page apart. What only DCGM can measure (DCGM_FI_PROF_…, but for the use of the
engine, which NVML tells as well) is absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from gpud.devices.snapshot import DeviceInfo, DeviceKind, Readings, Sample
from gpud.telemetry.page.cards import devices_now
from gpud.telemetry.page.table import Row, Table, counter, gauge, labelled
from gpud.units import MIB

# As etc/default-counters.csv of dcgm-exporter has them.
_COLUMNS = (
    gauge("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)."),
    gauge(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "Ratio of time the graphics engine is active, as NVML's utilization tells it.",
    ),
    gauge("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)."),
    gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)."),
    gauge("DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB)."),
    gauge("DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory in all (in MiB)."),
    counter("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy since boot (in mJ)."),
    gauge("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered."),
    gauge("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz)."),
    gauge("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz)."),
    gauge("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)."),
    gauge("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C)."),
    gauge("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)."),
    gauge("DCGM_FI_DEV_POWER_MGMT_LIMIT", "Power management limit (in W)."),
    gauge("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %)."),
    gauge("DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %)."),
    gauge("DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %)."),
    gauge("DCGM_FI_DEV_FAN_SPEED", "Fan speed (in %)."),
    gauge("DCGM_FI_DEV_PSTATE", "Performance state."),
    counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries."),
    counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Single-bit volatile ECC errors."),
    counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Double-bit volatile ECC errors."),
    counter(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for uncorrectable errors.",
    ),
    counter(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for correctable errors.",
    ),
    gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", form="%d"),
    # A rate in spite of its name, and of the type that dcgm-exporter long gave it: what DCGM makes
    # of NVML's counters of KiB, a thousand of them to the MB.
    gauge("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "NVLink throughput, both ways (in MB/s)."),
)
_NVLINK_BYTES = 1024 * 1000
# From DCGM_FI_DEV_SM_CLOCK to …ROW_REMAP_FAILURE.
_plain = attrgetter(
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_celsius",
    "memory_temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "memory_utilization_percent",
    "encoder_percent",
    "decoder_percent",
    "fan_percent",
    "performance_state",
    "pcie_replay_count",
    "ecc_corrected_count",
    "ecc_uncorrected_count",
    "remapped_uncorrected_count",
    "remapped_corrected_count",
    "remap_failed",
)


class DcgmPage:
    """The page; `hostname_label` is what it calls the host: Hostname, or hostname as of 2026."""

    def __init__(self, hostname: str, hostname_label: str) -> None:
        self._table = Table(_COLUMNS)
        self._host = (hostname_label, hostname)

    def render(self, samples: Iterable[Sample], now_boottime: float) -> str:
        """Of cards; slices of one are named by their card's number, as DCGM does."""
        shown = devices_now(samples, now_boottime)
        cards = [each for each in shown if each.info.kind is not DeviceKind.HOST]
        numbers = {each.info.uuid: each.info.index for each in cards}
        labels = tuple(
            _labels(each.info, numbers.get(each.info.parent_uuid or ""), self._host)
            for each in cards
        )
        return self._table.render(labels, [_row(each) for each in cards])


def _labels(info: DeviceInfo, parent: int | None, host: tuple[str, str]) -> str:
    number = info.index if parent is None else parent
    told = "" if number is None else str(number)
    name, hostname = host
    # NVML calls a slice by its card and its profile: NVIDIA A100-SXM4-40GB MIG 1g.5gb.
    model, _, profile = info.model_name.partition(" MIG ")
    return labelled(
        gpu=told or info.alias,
        UUID=info.uuid,
        pci_bus_id=info.pci_bus_id or "",
        device=f"nvidia{told}",
        modelName=model,
        GPU_I_PROFILE=profile,
        **{name: hostname},
        DCGM_FI_DRIVER_VERSION=info.driver_version or "",
    )


def _row(sample: Sample) -> Row:
    readings, total = sample.readings, sample.info.memory_total_bytes
    used, reserved = readings.memory_used_bytes, readings.memory_driver_reserved_bytes
    busy = readings.utilization_percent
    free = None if total is None or used is None else max(0, total - used - (reserved or 0))
    energy = readings.energy_joules
    xids = sample.xids
    return (
        busy,
        None if busy is None else busy / 100,
        *(None if each is None else each // MIB for each in (free, used, reserved, total)),
        None if energy is None else round(energy * 1000),
        # Which of several came last is not told: the one with the greatest number then.
        None if xids is None else max(xids, default=0),
        *_plain(readings),
        _nvlink(readings),
    )


def _nvlink(readings: Readings) -> float | None:
    sent, received = (
        readings.nvlink_sent_bytes_per_second,
        readings.nvlink_received_bytes_per_second,
    )
    return None if sent is None or received is None else (sent + received) / _NVLINK_BYTES
