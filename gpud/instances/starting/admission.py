"""Pure: what a start is refused for at the last moment, when its promise is made already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpud.devices.snapshot import Sample
from gpud.errors import GpudError
from gpud.instances.instance import Instance
from gpud.ledger.admission.policy import ONE_CONTEXT_MODES
from gpud.ledger.reservation import Enforcement, Reservation
from gpud.units import format_size


@dataclass(kw_only=True, eq=False)
class MemoryTaken(GpudError):
    """The promised bytes are not there: somebody to whom they were not promised took them."""

    reason = "MEMORY_TAKEN"

    instance: str
    device: str
    needed_bytes: int
    free_bytes: int
    owed_bytes: int  # of the free ones: promised to others, who have not taken them yet
    unpromised_bytes: int  # used by processes without a promise, or by none that is known
    overused_bytes: int  # used beyond the promises of those who have one

    def __str__(self) -> str:
        owed = f", {format_size(self.owed_bytes)} of it owed to others" if self.owed_bytes else ""
        return (
            f"cannot start {self.instance}: {self.device} has {format_size(self.free_bytes)} free"
            f"{owed}, promised were {format_size(self.needed_bytes)}; "
            f"{format_size(self.unpromised_bytes)} are used there without a promise and "
            f"{format_size(self.overused_bytes)} beyond one (`gpuctl devices` shows by whom): "
            "end that, then load again"
        )


@dataclass(kw_only=True, eq=False)
class ContextsRefused(GpudError):
    """The engine opens several contexts on a device that its driver lets take one."""

    reason = "CONTEXTS_REFUSED"

    instance: str
    engine: str
    device: str
    contexts: int

    def __str__(self) -> str:
        return (
            f"cannot start {self.instance}: {self.engine} opens {self.contexts} contexts on "
            f"{self.device}, which its driver holds in a mode for one; load it SHARED, or set "
            "policy.exclusive_process_mode = false"
        )


@dataclass(kw_only=True, eq=False)
class HostExhausted(GpudError):
    """The host lets no process start just now: its program may be as good as ever."""

    reason = "HOST_EXHAUSTED"

    instance: str
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot start {self.instance}: the host has no more of something: {self.problem}; "
            "see that it has processes, memory, open files and disk space left (`ulimit -a`, "
            "`free`, `df`), then try again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the books and the newest process list say of one device, by promise, in bytes."""

    own: int  # promised to the instance
    others: Mapping[str, int]  # every other promise
    observed: Mapping[str, int]  # what the processes of each were seen to use


def check_room(instance: str, sample: Sample, held: Held) -> None:
    """Raise MemoryTaken where what is free cannot hold the instance beside what others are owed.

    The device's reserve is not kept here: it is for what was not foreseen, and this is that.
    """
    total, used = sample.info.memory_total_bytes, sample.readings.memory_used_bytes
    if total is None or used is None:
        return  # nothing was promised on such a device, and nothing can be said of it
    free, owed = max(0, total - used), owed_bytes(sample, held, used)
    if free - owed < held.own:
        known = sum(held.observed.values())
        beyond = {id_: size - held.others.get(id_, 0) for id_, size in held.observed.items()}
        raise MemoryTaken(
            instance=instance,
            device=sample.info.alias,
            needed_bytes=held.own,
            free_bytes=free,
            owed_bytes=owed,
            unpromised_bytes=max(0, used - known),
            overused_bytes=sum(max(0, size) for size in beyond.values()),
        )


def owed_bytes(sample: Sample, held: Held, used_bytes: int) -> int:
    """What others were promised and have not taken yet.

    Where the device does not tell whose the used bytes are, they are taken to be theirs first;
    so is what grew since its newest process list, as in the formula of the ledger.
    """
    if sample.processes is None or any(each.used_bytes is None for each in sample.processes):
        return max(0, sum(held.others.values()) - used_bytes)
    untaken = sum(max(0, size - held.observed.get(id_, 0)) for id_, size in held.others.items())
    at_list = sample.memory_used_at_list_bytes
    grown = 0 if at_list is None else max(0, used_bytes - at_list)
    return max(0, untaken - grown)


def check_contexts(
    instance: Instance, contexts: int, reservation: Reservation, samples: tuple[Sample, ...]
) -> None:
    """Raise ContextsRefused where the driver would refuse the engine's second context.

    `contexts` is how many it opens on each device; `samples` are those of its devices.
    """
    enforced = {g.device for g in reservation.grants if g.enforcement is Enforcement.DRIVER}
    for sample in samples:
        in_mode = sample.readings.compute_mode in ONE_CONTEXT_MODES
        if contexts > 1 and (sample.info.uuid in enforced or in_mode):
            raise ContextsRefused(
                instance=instance.name,
                engine=instance.engine.value,
                device=sample.info.alias,
                contexts=contexts,
            )
