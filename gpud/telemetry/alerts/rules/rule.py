"""Pure: what a rule watches for, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gpud.access.reloading import CertificateState
from gpud.clock import Moment
from gpud.devices.snapshot import Snapshot
from gpud.events import Event
from gpud.instances.instance import Instance
from gpud.ledger.charge import Charge
from gpud.settings import Policy
from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.history.blocks import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """All that rules are judged by, at one moment.

    `engines` by the instances' ids. `store_problem`: why the store cannot be written or read.
    `watched_since` (boottime): since then one look has followed another; before it nobody looked.
    `trends` has, by field and subject, what is told by more than one moment; `engine_rows` what
    history makes of the engines' readings, by the instances' ids.
    """

    now: Moment
    snapshot: Snapshot
    charges: Mapping[str, Charge] = field(default_factory=dict)
    instances: Sequence[Instance] = ()
    engines: Mapping[str, EngineReading] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    store_problem: str = ""
    certificate: CertificateState | None = None
    watched_since: float = 0.0
    trends: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    engine_rows: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a rule sees of one subject. `holds` None: that cannot be told now.

    `words` say what is, with its numbers, also of one that holds no more; `severity` None and
    `remedy` "" are the rule's own.
    """

    subject: str
    holds: bool | None
    alias: str = ""
    words: str = ""
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    severity: Severity | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A field above, or below, a threshold; once it fires, until it is back beyond `clear`.

    `noun` is what kind of subject: devices, node, instances, models. `only` is one subject of
    these by its name or alias; "": all. What a field is not told of now (an engine that is idle)
    has gone as a subject.
    """

    field: str
    noun: str
    unit: str
    words: str
    above: float | None = None
    below: float | None = None
    clear: float = 0.0
    only: str = ""

    @property
    def threshold(self) -> float:
        """The one of both that it has."""
        found = self.above if self.above is not None else self.below
        assert found is not None  # noqa: S101 — rules are made with one
        return found

    def holds(self, value: float, *, fires: bool) -> bool:
        """Whether it holds; of one that fires already, still."""
        edge = self.clear if fires else self.threshold
        if self.above is not None:
            return value > edge
        return value < edge


# What holds now: of each subject that it holds of, or of which that cannot be told.
Look: TypeAlias = Callable[[Sight], Iterator[Observation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Something that gpud knows by itself, with a threshold elsewhere or none."""

    look: Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Events of the journal: it holds from one of `type` until `{type}.ended` of the same key.

    With `hold_seconds` it holds for so long after the last. `key`: details that tell several of
    one subject apart. `severity_of` None for an event means that it is none.
    """

    type: str
    hold_seconds: float | None = None
    key: tuple[str, ...] = ()
    severity_of: Callable[[Event], Severity | None] | None = None


What: TypeAlias = Level | Sign | Happening


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is watched, how long it has to hold, and who is told; sinks None: all of them.

    `severity` None: as the observation says, WARNING where it says nothing. `within`: the rule
    that tells of the same with more words; while that fires of a subject, this one does not.
    """

    name: str
    what: What
    remedy: str
    severity: Severity | None = None
    for_seconds: float = 0.0
    sinks: tuple[str, ...] | None = None
    within: str = ""

    def severity_of(self, seen: Observation) -> Severity:
        """How much it matters now."""
        return self.severity or seen.severity or Severity.WARNING
