"""Where a process tree may run and take its memory: applied by the shim to itself, and inherited.

Part of the shim: on the standard library alone. CPUs, memory policy and cgroup pass to the engine
and all below it. Nothing here is worth a load: what cannot be applied is told, and the engine
starts all the same.
"""

from __future__ import annotations

import ctypes
import os
import resource

BINDING_FILE = "binding"
FIELD_COUNT = 4

MPOL_PREFERRED = 1  # other nodes help out when this one is full: a load must not die of it
SYSCALL_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261}
MAX_NODES = 1024


class Binding:
    """What a tree is to be bound to; or what it was, then `problems` says what could not be.

    A plain class: what would write it for us takes longer to import than all of the shim.
    """

    __slots__ = ("cgroup", "cpus", "lock_memory", "memory_node", "problems")

    def __init__(
        self,
        cpus: tuple[int, ...] = (),
        memory_node: int | None = None,
        cgroup: str = "",
        lock_memory: bool = False,
        problems: tuple[str, ...] = (),
    ) -> None:
        self.cpus = cpus  # none: wherever the daemon may run
        self.memory_node = memory_node
        self.cgroup = cgroup  # the folder of a cgroup of its own
        self.lock_memory = lock_memory  # as much as it is allowed to
        self.problems = problems

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash(self.fields())

    def __repr__(self) -> str:
        return f"Binding{self.fields()}"

    def fields(self) -> tuple[str, ...]:
        """As `parse` reads it; none holds a NUL. The first FIELD_COUNT are always there."""
        node = "" if self.memory_node is None else str(self.memory_node)
        lock = "1" if self.lock_memory else ""
        return ",".join(map(str, self.cpus)), node, self.cgroup, lock, *self.problems


def parse(fields: list[bytes]) -> Binding:
    """The binding that `fields` wrote. Raises ValueError."""
    cpus, node, cgroup, lock, *problems = (os.fsdecode(field) for field in fields)
    return Binding(
        cpus=tuple(int(cpu) for cpu in cpus.split(",") if cpu),
        memory_node=int(node) if node else None,
        cgroup=cgroup,
        lock_memory=bool(lock),
        problems=tuple(problems),
    )


def apply(wanted: Binding) -> Binding:
    """Bind this process as far as the host allows; what it is bound to now."""
    problems: list[str] = []
    cgroup = _join(wanted.cgroup, problems) if wanted.cgroup else ""
    if wanted.lock_memory:
        _raise_lock_limit(problems)
    cpus = _bind_cpus(wanted.cpus, problems) if wanted.cpus else ()
    node = wanted.memory_node
    if node is not None:
        node = _prefer_node(node, problems)
    return Binding(cpus, node, cgroup, wanted.lock_memory, tuple(problems))


def _join(folder: str, problems: list[str]) -> str:
    try:
        with open(os.path.join(folder, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        problems.append(f"cgroup {folder}: {error.strerror}")
        return ""
    return folder


def _raise_lock_limit(problems: list[str]) -> None:
    """The engine may lock as much as the hard limit lets anyone here."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    except (OSError, ValueError) as error:
        problems.append(f"RLIMIT_MEMLOCK: {error}")


def _bind_cpus(wanted: tuple[int, ...], problems: list[str]) -> tuple[int, ...]:
    """Those of them that the daemon's own cpuset allows: no others can be had."""
    allowed = os.sched_getaffinity(0)
    cpus = allowed.intersection(wanted)
    if not cpus:
        problems.append(f"CPUs {shown(wanted)}: none is among those allowed, {shown(allowed)}")
        return ()
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        problems.append(f"CPUs {shown(cpus)}: {error.strerror}")
        return ()
    return tuple(sorted(cpus))


def shown(cpus: tuple[int, ...] | set[int]) -> str:
    """A few of them, for people."""
    ordered = sorted(cpus)
    more = ",…" if len(ordered) > 16 else ""
    return ",".join(map(str, ordered[:16])) + more


def _prefer_node(node: int, problems: list[str]) -> int | None:
    """Memory from this node first (set_mempolicy(2)); the C library has no name for the call."""
    number = SYSCALL_SET_MEMPOLICY.get(os.uname().machine)
    if number is None or not 0 <= node < MAX_NODES:
        problems.append(f"memory node {node}: not known how to on {os.uname().machine}")
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (MAX_NODES // bits))()
    mask[node // bits] = 1 << (node % bits)
    # The kernel reads one bit less than it is told.
    if libc.syscall(number, MPOL_PREFERRED, ctypes.byref(mask), ctypes.c_ulong(MAX_NODES + 1)):
        problems.append(f"memory node {node}: {os.strerror(ctypes.get_errno())}")
        return None
    return node


def record(bound: Binding) -> str:
    """What BINDING_FILE holds: each field ends in NUL."""
    return "".join(f"{field}\0" for field in bound.fields())


def told(text: bytes) -> Binding:
    """The binding of a BINDING_FILE. Raises ValueError."""
    return parse(text.split(b"\0")[:-1])
