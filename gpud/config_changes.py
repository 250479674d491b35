"""Pure: what differs between two configurations, and what of it counts while gpud runs."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from gpud.errors import GpudError
from gpud.settings import Config

# Sections that are taken over whole. The others are of what is built once: addresses, devices, …
LIVE_SECTIONS = (
    "policy",
    "health",
    "limits",
    "profiles",
    "reservations",
    "identities",
    "tokens",
    "quotas",
    "alerts",
    "events",
)


@dataclass(kw_only=True, eq=False)
class ConfigRefused(GpudError):
    """The configuration as it is now cannot be used; the one in force stays so."""

    reason = "CONFIG_INVALID"

    problem: str

    def __str__(self) -> str:
        return f"{self.problem}; the configuration in force stays so"


class Kind(enum.Enum):
    """What became of a key."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """One key that differs: a value, or a table that bears a name of somebody's choice."""

    key: str
    kind: Kind
    needs_restart: bool

    def __str__(self) -> str:
        restart = " (needs a restart)" if self.needs_restart else ""
        return f"{self.key} {self.kind.value}{restart}"


def in_force(old: Config, new: Config) -> Config:
    """The new one, but what cannot change while gpud runs as it is in the old one."""
    live: dict[str, Any] = {name: getattr(new, name) for name in LIVE_SECTIONS}
    models = structs.replace(old.models, entries=new.models.entries, roots=new.models.roots)
    engines = structs.replace(
        old.engines,
        llama_cpp=structs.replace(
            old.engines.llama_cpp, load_stall=new.engines.llama_cpp.load_stall
        ),
        vllm=structs.replace(old.engines.vllm, load_stall=new.engines.vllm.load_stall),
    )
    return structs.replace(old, models=models, engines=engines, **live)


def changes(old: Config, new: Config) -> tuple[ConfigChange, ...]:
    """What differs, by key."""
    found = dict(_differences("", old, new))
    remaining = {key for key, _ in _differences("", in_force(old, new), new)}
    return tuple(
        ConfigChange(key=key, kind=kind, needs_restart=key in remaining)
        for key, kind in sorted(found.items())
    )


def _differences(prefix: str, old: object, new: object) -> Iterator[tuple[str, Kind]]:
    """Sections key by key; of tables with names, whole tables."""
    if isinstance(old, msgspec.Struct):
        for name in old.__struct_fields__:
            # [models.NAME] stands in [models] itself.
            below = prefix if name == "entries" else f"{prefix}{name}."
            yield from _differences(below, getattr(old, name), getattr(new, name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield f"{prefix}{name}", _kind(name in old, name in new)
    elif old != new:
        yield prefix.removesuffix("."), Kind.CHANGED


def _kind(was: bool, is_: bool) -> Kind:
    if was and is_:
        return Kind.CHANGED
    return Kind.ADDED if is_ else Kind.REMOVED
