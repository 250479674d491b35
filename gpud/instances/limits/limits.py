"""Pure: what one instance may take of the host, and the words for how that is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from gpud.devices.topology import format_cpus, parse_cpus
from gpud.errors import OptionInvalid
from gpud.instances.instance import Instance
from gpud.instances.needs import Need
from gpud.models.model import EngineKind, Footprint, FootprintWhat, Limits, ModelOptions
from gpud.units import format_size

NO_CONTROLLER = "not enforced: no memory controller is delegated"


def with_threads(options: ModelOptions, engine: EngineKind, limits: Limits) -> ModelOptions:
    """As many threads as it has cores, where nobody said how many."""
    if engine is not EngineKind.LLAMA_CPP or limits.cpus is None or options.threads is not None:
        return options
    return replace(options, threads=core_count(limits.cpus))


def core_count(cpus: float) -> int:
    """How many cores it takes to have so many."""
    return max(1, math.ceil(cpus))


def choose(
    cpus: float, near: Collection[int], allowed: Iterable[int], others: Iterable[Instance]
) -> tuple[int, ...]:
    """Its own cores: those that fewest others with a limit have, then those near its devices.

    `others` are the instances beside it, whatever has become of them.
    """
    taken: Counter[int] = Counter()
    for each in others:
        if not each.ended and each.limits.cpus is not None:
            taken.update(parse_cpus(each.cpu_affinity))
    ordered = sorted(allowed, key=lambda cpu: (taken[cpu], cpu not in near, cpu))
    return tuple(sorted(ordered[: core_count(cpus)]))


def check_memory(instance: Instance, need: Need) -> None:
    """Refuse what could not even be loaded. Raises OptionInvalid.

    On the host itself that is all of its footprint but the margin, else its RAM beside a card.
    """
    limit = instance.limits.memory_bytes
    if limit is None:
        return
    beside_card = need.on_card is not None or need.on_host is None
    needed = need.beside_bytes if beside_card else _bare(need.on_host)
    if needed > limit:
        raise OptionInvalid(
            field="limits.memory",
            problem=f"{format_size(limit)} of the host's memory are less than the "
            f"{format_size(needed)} that models/{instance.model} needs there; raise it in "
            f"[models.{instance.model}]",
        )


def _bare(footprint: Footprint | None) -> int:
    items = footprint.items if footprint is not None else ()
    return sum(item.bytes for item in items if item.what is not FootprintWhat.MARGIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What could be done for a limit: which cgroup it joined, what of it holds, which cores."""

    in_cgroup: bool
    has_quota: bool  # of time on its cores, by the cgroup
    cpus: Collection[int]
    problems: tuple[str, ...] = ()


def words(limits: Limits, kept: Kept) -> str:
    """How each limit is enforced; empty where there is none."""
    parts = []
    if limits.cpus is not None:
        parts.append(f"cpus: {_cpu_words(limits.cpus, kept)}")
    if limits.memory_bytes is not None:
        problems = "; ".join(kept.problems)
        not_in = f"not enforced: {problems}" if problems else NO_CONTROLLER
        parts.append(f"memory: {'cgroup' if kept.in_cgroup else not_in}")
    return "; ".join(parts)


def _cpu_words(cpus: float, kept: Kept) -> str:
    bound = f"bound to CPUs {format_cpus(kept.cpus)}" if kept.cpus else ""
    if kept.in_cgroup and kept.has_quota:
        return f"cgroup, {bound}" if bound else "cgroup"
    if not bound:
        return "not enforced: it could not be bound to CPUs of its own"
    whole = len(kept.cpus)
    return bound if whole <= cpus else f"{bound}, the whole of {whole} instead of {cpus:g}"
