"""Pure: processes that say they are an instance's while no record knows them, and whose they are.

Provably ours is one whose secret token stands in a folder of this state directory, of this boot,
with our user, begun after the shim whose token it is; and all that descends from such a one. To
name an instance in the environment is no proof: anybody can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpud.instances.instance import ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One process with a sign of an instance: in its environment, its ancestors', or its folder.

    `start_time` is in clock ticks after boot. `token` is its own or the nearest ancestor's that
    has one. `folder` is the id in the name of its working directory, where that is below ours.
    """

    pid: int
    parent: int
    start_time: int
    uid: int
    command: str
    instance: str = ""
    token: str = ""
    folder: str = ""
    resident_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is to judge by: tokens of trees that records know, and those of the folders."""

    tokens: frozenset[str]
    live_folders: frozenset[str]
    custody: Mapping[str, ProcessIdentity]  # by the folder's name
    boot_id: str
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A process of no record. `why_not`: why it is not provably ours; empty where it is.

    `uses` are the bytes that devices listed of it when it was looked for, by UUID.
    """

    trace: Trace
    instance: str  # id; that of the folder where it is proved
    why_not: str = ""
    is_shim: bool = False  # it can end all of its tree, what hides from us too
    start_wall: float = 0.0
    uses: tuple[tuple[str, int], ...] = ()

    @property
    def provable(self) -> bool:
        """Whether it may be ended as ours."""
        return not self.why_not


def orphans(traces: Iterable[Trace], known: Known) -> tuple[Orphan, ...]:
    """Those that no record knows, by pid."""
    found = []
    for trace in sorted(traces, key=lambda each: each.pid):
        if trace.token in known.tokens:
            continue
        if not (trace.instance or trace.token) and trace.folder in known.live_folders:
            continue  # somebody looks at what belongs to an instance that runs
        found.append(_judged(trace, known))
    return tuple(found)


def _judged(trace: Trace, known: Known) -> Orphan:
    id_, identity = _custodian(trace, known)
    named = id_ or trace.instance or trace.folder
    orphan = Orphan(trace=trace, instance=named, why_not=_why_not(trace, identity, known))
    is_shim = identity is not None and (
        (identity.pid, identity.start_time) == (trace.pid, trace.start_time)
    )
    return replace(orphan, is_shim=is_shim)


def _custodian(trace: Trace, known: Known) -> tuple[str, ProcessIdentity | None]:
    """The folder that its token stands in."""
    if trace.token:
        for id_, identity in known.custody.items():
            if identity.token == trace.token:
                return id_, identity
    return "", None


def _why_not(trace: Trace, identity: ProcessIdentity | None, known: Known) -> str:
    if not trace.token:
        sign = "names an instance" if trace.instance else "works in an instance's folder"
        return f"it only {sign} and holds no token: anybody can do that"
    if identity is None:
        return (
            "no folder of this state directory knows its token: it is another gpud's, a "
            "stranger's, or its folder is gone"
        )
    if identity.boot_id != known.boot_id:
        return "its token is of an earlier boot"
    if trace.uid != known.uid:
        return f"it runs as user {trace.uid}, our engines as user {known.uid}"
    if trace.start_time < identity.start_time:
        return "it began before the instance whose token it holds"
    return ""
