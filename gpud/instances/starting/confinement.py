"""Pure: what an instance is bound to and how it is kept from swap, and the words for either."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.devices.snapshot import DeviceInfo, DeviceKind
from gpud.devices.topology import format_cpus, parse_cpus
from gpud.settings import Policy
from gpud.units import format_size

ONE_NODE = "one NUMA node: nothing to bind"
IN_CGROUP = "cgroup"
LOCKED = "mlock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """CPUs and a memory node to bind to; `words` say why there are none, else are empty."""

    cpus: frozenset[int] = frozenset()
    memory_node: int | None = None
    words: str = ""


def nearby(infos: Iterable[DeviceInfo], node_count: int | None, policy: Policy) -> Nearby:
    """What is nearest to an instance's devices, as far as policy wants it and all of them tell.

    Several cards' CPUs add up; memory is taken from a node only when it is the nearest to all.
    """
    cards = [info for info in infos if info.kind is not DeviceKind.HOST]
    if not cards or not (policy.gpu_affinity or policy.numa_aware):
        return Nearby()
    if node_count == 1:
        return Nearby(words=ONE_NODE)
    lists = [info.cpu_affinity for info in cards] if policy.gpu_affinity else []
    told = [parse_cpus(each) for each in lists if each is not None]
    cpus = frozenset().union(*told) if len(told) == len(lists) else frozenset()
    nodes = {info.numa_node for info in cards} if policy.numa_aware else {None}
    node = next(iter(nodes)) if len(nodes) == 1 else None
    if not cpus and node is None:
        return Nearby(words="its devices do not tell one nearest NUMA node: bound to none")
    return Nearby(cpus=cpus, memory_node=node)


def binding_words(cpus: Iterable[int], memory_node: int | None) -> str:
    """`CPUs 0-15, memory node 0`; empty for neither."""
    listed = format_cpus(cpus)
    parts = [f"CPUs {listed}"] if listed else []
    parts += [f"memory node {memory_node}"] if memory_node is not None else []
    return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTerms:
    """What decides whether an engine can lock its model: by its build, by the host's limit."""

    engine_can: bool
    needed_bytes: int  # the model's file: what can become locked, at most
    limit_bytes: int | None  # None: no limit


def swap_words(policy: Policy, terms: LockTerms, *, in_cgroup: bool) -> str:
    """How an instance is kept from swap: IN_CGROUP, LOCKED, or why neither."""
    if not policy.swap_disabled:
        return "not enforced: policy.swap_disabled is off"
    if in_cgroup:
        return IN_CGROUP
    if not terms.engine_can:
        return "not enforced: no memory cgroup is delegated, and the engine has no flag to lock"
    if terms.limit_bytes is not None and terms.limit_bytes < terms.needed_bytes:
        limit, needed = format_size(terms.limit_bytes), format_size(terms.needed_bytes)
        return f"not enforced: RLIMIT_MEMLOCK {limit} < {needed}"
    return LOCKED
