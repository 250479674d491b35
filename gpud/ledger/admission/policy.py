"""Pure: what the administrator set, and the rules that refuse a device whatever its bytes."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from gpud.clock import Moment
from gpud.devices.snapshot import (
    DeviceKind,
    Health,
    Pressure,
    ProcessKind,
    Sample,
    Thermal,
)
from gpud.ledger.books import Books, DeviceBook
from gpud.ledger.charge import Reserves, is_stale
from gpud.ledger.reservation import Enforcement, ReserveRequest
from gpud.units import format_size

# Where a second process gets no context.
ONE_CONTEXT_MODES = frozenset({"exclusive_process", "exclusive_thread"})
NO_CONTEXT_MODE = "prohibited"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Who may wait, and who may pass whom. 0 reservations per owner is no limit."""

    by_priority: bool = True
    max_queued: int = 512
    max_queued_per_owner: int = 64
    max_reservations_per_owner: int = 0
    ageing_seconds: float = 300.0
    overtaking_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionSettings:
    """When a reservation may be ended for another's sake."""

    on: bool = False
    grace_seconds: float = 30.0
    min_tenure_seconds: float = 60.0
    ratio: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerQuota:
    """What one owner may have at once, 0 is no limit; `key` is its table in the configuration.

    `gpu_bytes` is of all devices but the host, `reservations` counts those that wait as well.
    """

    key: str
    gpu_bytes: int = 0
    host_bytes: int = 0
    reservations: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """An owner's own quota, or the one of all who have none of their own."""

    default: OwnerQuota | None = None
    owners: Mapping[str, OwnerQuota] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.default is not None or bool(self.owners)

    def of(self, owner: str) -> OwnerQuota | None:
        """What bounds an owner; None: nothing does."""
        return self.owners.get(owner, self.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The policy that the ledger decides by."""

    reserves: Reserves
    release_deadline_seconds: float
    queue: QueueSettings = field(default_factory=QueueSettings)
    preemption: PreemptionSettings = field(default_factory=PreemptionSettings)
    quotas: QuotaSettings = field(default_factory=QuotaSettings)
    numa_aware: bool = True
    exclusive_process_mode: bool = True
    critical_load_percent: float = 95.0


def device_rule(sample: Sample, books: Books, now: Moment) -> str:
    """Why a device grants nothing to anybody now; empty when it may grant."""
    cordon = books.cordons.get(sample.info.uuid)
    if books.drain is not None:
        return f"the node is draining{_because(books.drain.reason)}; `gpuctl resume` ends that"
    if cordon is not None:
        alias = sample.info.alias
        return f"cordoned{_because(cordon.reason)}; `gpuctl uncordon {alias}` ends that"
    return state_rule(sample, now)


def state_rule(sample: Sample, now: Moment) -> str:
    """Why nothing new starts on a device as it is, even in a promise that was made already."""
    if sample.is_sliced:
        return "MIG is on: its slices are the devices"
    if sample.health is not Health.HEALTHY:
        return f"{sample.health.value}{_because(sample.health_reason)}"
    if sample.info.memory_total_bytes is None or sample.readings.memory_used_bytes is None:
        return "its driver does not tell its memory"
    if is_stale(sample, now.boottime):
        return f"its newest sample is {now.boottime - sample.boottime:.0f} s old"
    if sample.thermal is Thermal.CRITICAL:
        degrees = sample.readings.temperature_celsius
        shown = f" ({degrees:.0f} °C)" if degrees is not None else ""
        return f"critically hot{shown}: nothing new starts on it until it has cooled"
    if sample.readings.compute_mode == NO_CONTEXT_MODE:
        return _mode_words(sample, "no process")
    return ""


def exclusion_rule(
    sample: Sample,
    book: DeviceBook,
    request: ReserveRequest,
    settings: LedgerSettings,
    standing: Container[str],
) -> str:
    """Why this request in particular may not be on a device, whatever is free there.

    `standing` are the reservations of the configuration.
    """
    if request.within is not None:
        inside = request.within in book.holders and request.within not in book.releasing
        return "" if inside else f"reservations/{request.within} holds nothing on it"
    if book.exclusive is not None:
        stands = ", and stands in the configuration" if book.exclusive in standing else ""
        return f"reservations/{book.exclusive} has it exclusively{stands}"
    return lasting_rule(sample, book, request, settings)


def lasting_rule(
    sample: Sample, book: DeviceBook, request: ReserveRequest, settings: LedgerSettings
) -> str:
    """Why this request may not be on a device even once whoever has it alone has gone.

    The mode that keeps an exclusive promise alone goes with it; one that somebody set stays.
    """
    is_kept_to_one = sample.readings.compute_mode in ONE_CONTEXT_MODES
    if is_kept_to_one and book.exclusive is None and not request.exclusive:
        return _mode_words(sample, "one process")
    return enforcement_rule(sample, request, settings)


def enforcement_rule(sample: Sample, request: ReserveRequest, settings: LedgerSettings) -> str:
    """Why the driver will never keep others off it, where the request requires that."""
    if request.require_enforcement is Enforcement.DRIVER:
        if sample.info.kind is not DeviceKind.GPU:
            return "no driver keeps other processes off it; only whole GPUs have such a mode"
        if not settings.exclusive_process_mode:
            return "policy.exclusive_process_mode is off, so no driver keeps others off it"
    return ""


def holders_there(book: DeviceBook) -> str:
    """Which promises keep a device from being anybody's alone; empty when none does."""
    if not book.holders:
        return ""
    first = min(book.holders)
    more = f" and {len(book.holders) - 1} more" if len(book.holders) > 1 else ""
    return f"EXCLUSIVE needs it empty, and reservations/{first}{more} is on it"


def strangers_there(sample: Sample, book: DeviceBook) -> str:
    """Which processes without a promise keep a device from being anybody's alone.

    A display's bytes are charged as foreign, but it computes nothing and no mode forbids it. The
    host is never without others.
    """
    strangers = [
        process
        for process in sample.processes or ()
        if process.kind is not ProcessKind.GRAPHICS
        and sample.info.kind is not DeviceKind.HOST
        and book.carrier(process.claim) not in book.holders
    ]
    if not strangers:
        return ""
    size = format_size(sum(process.used_bytes or 0 for process in strangers))
    who = f"pid {strangers[0].pid} ({strangers[0].process_name or '?'})"
    more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    return f"EXCLUSIVE needs it empty, and {who}{more} uses {size} there without a promise"


def overload(sample: Sample, size: int, limit_percent: float) -> str:
    """Why a load waits on a device whose memory is critically full already."""
    total, used = sample.info.memory_total_bytes, sample.readings.memory_used_bytes
    if sample.pressure is not Pressure.CRITICAL or not total or used is None:
        return ""
    before, after = 100 * used / total, 100 * (used + size) / total
    if after < limit_percent:
        return ""
    return (
        f"its memory pressure is CRITICAL ({before:.0f} % used), and this load would leave it "
        f"{after:.0f} % full; only one that leaves less than {limit_percent:g} % starts"
    )


def _mode_words(sample: Sample, takes: str) -> str:
    mode = (sample.readings.compute_mode or "").upper()
    end = f"`nvidia-smi -i {sample.info.uuid} -c DEFAULT`"
    return f"its compute mode {mode} takes {takes}; {end} ends that"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
