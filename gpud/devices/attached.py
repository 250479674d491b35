"""Pure: which processes and cgroups were attached to which reservations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentTable:
    """All attachments that hold now.

    `processes`: (pid, start time in clock ticks after boot, reservation id). `cgroups`: (path as
    /proc/PID/cgroup shows it, reservation id); it stands for every cgroup below it too.
    """

    processes: tuple[tuple[int, int, str], ...] = ()
    cgroups: tuple[tuple[str, str], ...] = ()

    @property
    def reservations(self) -> frozenset[str]:
        """Ids of those that have attachments."""
        return frozenset([id_ for _, _, id_ in self.processes] + [id_ for _, id_ in self.cgroups])

    def of_cgroups(self, paths: list[str]) -> str | None:
        """The reservation of a process in these cgroups (one per hierarchy): the deepest's."""
        found = [
            (len(cgroup), id_)
            for cgroup, id_ in self.cgroups
            if any(is_within(path, cgroup) for path in paths)
        ]
        return max(found)[1] if found else None


def is_within(path: str, cgroup: str) -> bool:
    """Whether a cgroup is this one or below it."""
    return path == cgroup or path.startswith(f"{cgroup}/")


def cgroup_paths(text: str) -> list[str]:
    """The paths in /proc/PID/cgroup, one per hierarchy: cgroups(7)."""
    return [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2]
