"""Pure: what devices show. Frozen values; a reading that was refused is None, never 0."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


class DeviceKind(enum.Enum):
    """What kind of memory a device has."""

    GPU = "gpu"
    MIG = "mig"
    HOST = "host"
    SIMULATED = "simulated"


class Health(enum.Enum):
    """Whether a device can be believed."""

    HEALTHY = "healthy"
    UNRESPONSIVE = "unresponsive"  # missed its deadline
    LOST = "lost"  # the driver says it is gone
    UNKNOWN = "unknown"  # answers, but refuses what grants need


class Pressure(enum.IntEnum):
    """How full its memory is, by the policy's thresholds; no band is falsy."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


class Thermal(enum.IntEnum):
    """How hot it is, by the policy's thresholds; no band is falsy."""

    NORMAL = 1
    WARNING = 2
    THROTTLING = 3
    CRITICAL = 4  # nothing new starts there


class Action(enum.IntEnum):
    """What is to be done about a device; a greater one does for what a smaller one does."""

    NONE = 1
    RESTART_APP = 2
    RESET = 3
    REBOOT = 4
    INSPECT = 5  # nothing that software does helps


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the signs of a device (Xids, ECC, its driver's own word) come to.

    `is_fatal`: it is given nothing new until an admin uncordons it. `signs` are the fatal ones,
    by which it is told whether this verdict has been acted on (enforcement/quarantine.py).
    """

    action: Action = Action.NONE
    reason: str = ""
    is_fatal: bool = False
    signs: tuple[str, ...] = ()


class ProcessKind(enum.Enum):
    """How a process uses a device; all kinds are charged alike."""

    COMPUTE = "compute"
    GRAPHICS = "graphics"
    MPS = "mps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """One process on one device.

    `claim` is the reservation id that its environment, or an ancestor's, names in
    GPUD_RESERVATION; whether the claim holds is the ledger's business. `attached` says that it was
    attached to that reservation by pid or cgroup instead, itself or an ancestor.
    """

    pid: int
    start_time: int | None  # clock ticks after boot, /proc/PID/stat field 22; None: not readable
    process_name: str
    used_bytes: int | None
    kind: ProcessKind
    claim: str | None = None
    attached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What does not change while the device stays."""

    uuid: str
    alias: str  # gpu0, gpu1, … in the driver's order; host
    index: int | None
    kind: DeviceKind
    model_name: str
    memory_total_bytes: int | None
    parent_uuid: str | None = None  # the card of a MIG slice
    pci_bus_id: str | None = None
    driver_version: str | None = None
    numa_node: int | None = None
    # CPUs nearest to it, `0-15,32-47`; None: unknown, or the host has but one NUMA node.
    cpu_affinity: str | None = None
    tells_xids: bool = False  # its driver reports errors by number as they happen


class Readings(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What changes, read in one go. Bytes, watts, degrees Celsius, percent 0..100, MHz.

    `memory_used_bytes` excludes `memory_driver_reserved_bytes` where the driver tells them apart
    (NVML memory v2); where it does not, the latter is None.

    A struct, not a dataclass: one is made, sent and read again for each card at each tick, and
    that costs a seventh so.
    """

    memory_used_bytes: int | None = None
    memory_driver_reserved_bytes: int | None = None
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    fan_percent: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    compute_mode: str | None = None  # default, exclusive_thread, prohibited, exclusive_process
    mig_enabled: bool | None = None
    memory_temperature_celsius: float | None = None
    video_clock_mhz: int | None = None
    performance_state: int | None = None  # 0 is the fastest, 15 the slowest
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    energy_joules: float | None = None  # since the driver was loaded
    # Why its clocks are held down: idle, power_cap, thermal, … (verdict/throttling.py); () for
    # nothing.
    throttle_reasons: tuple[str, ...] | None = None
    ecc_enabled: bool | None = None
    # Since the driver was loaded.
    ecc_corrected_count: int | None = None
    ecc_uncorrected_count: int | None = None
    # Rows of memory replaced by spare ones, and pages taken out of use on cards before that.
    remapped_corrected_count: int | None = None
    remapped_uncorrected_count: int | None = None
    remap_pending: bool | None = None  # a reset applies it
    remap_failed: bool | None = None  # there is no spare row left
    retired_page_count: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replay_count: int | None = None
    pcie_sent_bytes_per_second: float | None = None
    pcie_received_bytes_per_second: float | None = None
    nvlink_active_count: int | None = None
    nvlink_error_count: int | None = None
    # Of all its links together, without what their protocol adds.
    nvlink_sent_bytes_per_second: float | None = None
    nvlink_received_bytes_per_second: float | None = None
    # What the driver itself says that brings it back: none, reset, reboot, drain_and_reset, …
    recovery_action: str | None = None

    def changed(self, **fields: Any) -> Readings:
        """The same but for these fields."""
        return msgspec.structs.replace(self, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One device at one moment (`boottime` and `wall` in seconds, as in clock.Moment).

    `was_read` False: it was not since gpud started; the times are of when it should have been.

    `processes` is the newest list that could be read, taken at `listed_boottime` together with
    `memory_used_at_list_bytes`; None: none was read yet, or `never_lists`: the driver says that it
    has none, or gave none although it was asked again and again. In a tick that read the list,
    listed_boottime == boottime.

    `pressure` and `thermal` are None while unknown, but for CRITICAL, which stays until a reading
    says otherwise; the heat of a MIG slice is its card's. `pressure_events` counts how often it
    came under CRITICAL memory pressure since the daemon started. `vanished_boottime` is since when
    its driver lists it no more: such a device is LOST, shown as it was last, and asked nothing.
    """

    info: DeviceInfo
    boottime: float
    wall: float
    readings: Readings
    was_read: bool = True
    health: Health = Health.HEALTHY
    health_reason: str = ""
    processes: tuple[ProcessUse, ...] | None = None
    listed_boottime: float | None = None
    listed_wall: float | None = None
    memory_used_at_list_bytes: int | None = None
    never_lists: bool = False
    pressure: Pressure | None = None
    thermal: Thermal | None = None
    pressure_events: int = 0
    vanished_boottime: float | None = None
    verdict: Verdict = Verdict()
    # Xids since the daemon started, and those of earlier lives in this boot that nobody has dealt
    # with, how often each; None: its driver does not tell them.
    xids: Mapping[int, int] | None = None
    xids_before: Mapping[int, int] | None = None  # of these, those of earlier lives

    @property
    def is_sliced(self) -> bool:
        """A card in MIG mode: its memory is its slices' to grant, not its own."""
        return bool(self.readings.mig_enabled) and self.info.kind is DeviceKind.GPU

    @property
    def is_gone_slice(self) -> bool:
        """A MIG slice that is listed no more: its card was cut anew, or is lost itself."""
        return self.vanished_boottime is not None and self.info.kind is DeviceKind.MIG


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMemory:
    """The memory of one NUMA node, in bytes."""

    node: int
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system under one of our folders (`state`, `models`), in bytes.

    `disk` is the device that it lies on, as lsblk calls it (8:1): folders with the same share it.
    """

    what: str
    path: str
    total_bytes: int
    free_bytes: int  # for us, who may not be root
    disk: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReadings:
    """The host beside its devices. Bytes and percent.

    `memory_some_percent` and `memory_full_percent`: the share of the last 10 s in which some, or
    all, tasks waited for memory (PSI). `memory_cgroup_events` are the counters of the memory
    cgroup that gpud runs in. `memory_pressure_events` is counted from all of these, and from swap,
    since the daemon started (host_pressure.py); a reading as such has none.
    """

    cpu_percent: float | None = None
    load_average: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    memory_some_percent: float | None = None
    memory_full_percent: float | None = None
    memory_cgroup_events: dict[str, int] | None = None
    memory_pressure_events: int = 0
    cpu_some_percent: float | None = None
    io_some_percent: float | None = None
    io_full_percent: float | None = None
    nodes: tuple[NodeMemory, ...] = ()
    disks: tuple[Disk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeeze:
    """The host came under memory pressure: by which sign (psi, swap, cgroup), with its numbers."""

    source: str
    words: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A driver that cannot be used though it is here, or wanted; or one card (`device`) of it.

    `device` is what it is asked by before it is known. `is_wanted`: the configuration insists.
    """

    driver: str
    reason: str
    device: str = ""
    is_wanted: bool = False

    @property
    def words(self) -> str:
        """For people."""
        return f"cannot use {self.device or f'the {self.driver} driver'}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All devices at one moment, numbered from 1 in each life of the daemon.

    `complete` says that each device answered or missed its deadline since the sampler started.
    Samples are in alias order: GPUs and slices by index, then `host`.
    """

    sequence: int
    boottime: float
    wall: float
    samples: tuple[Sample, ...]
    host: HostReadings = field(default_factory=HostReadings)
    complete: bool = True
    squeezes: tuple[Squeeze, ...] = ()  # that began with this tick
    troubles: tuple[Trouble, ...] = ()

    @property
    def trouble(self) -> str:
        """Why cards that are here cannot be used, the driver first; empty: of none is known."""
        return self.troubles[0].words if self.troubles else ""

    def find(self, key: str) -> Sample | None:
        """The sample of a UUID, an alias or a `devices/…` name."""
        bare = key.removeprefix("devices/")
        for sample in self.samples:
            if bare in (sample.info.uuid, sample.info.alias):
                return sample
        return None
