"""Sights, rules and alerts as data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpud.clock import Moment
from gpud.devices.snapshot import HostReadings, Sample
from gpud.instances.instance import Instance, InstanceState
from gpud.ledger.charge import Charge
from gpud.models.model import EngineKind, ModelOptions
from gpud.telemetry.alerts.alert import Alert, AlertState, Severity
from gpud.telemetry.alerts.rules.rule import Level, Observation, Rule, Sight
from gpud.telemetry.engines.reading import EngineReading
from tests.fakes.cards import GIB, sample, snapshot

START = 1000.0
WALL = 1.7e9


def now(boottime: float = START) -> Moment:
    return Moment(boot_id="boot-1", boottime=boottime, wall=WALL + boottime - START)


def rule(for_seconds: float = 0.0, **changes: Any) -> Rule:
    what = Level(
        field="power_watts", noun="devices", unit="watts", words="power is", above=100, clear=90
    )
    made = Rule(name="hungry", what=what, remedy="feed it less", for_seconds=for_seconds)
    return replace(made, **changes)


def seen(holds: bool | None, **fields: Any) -> Observation:
    return Observation(**{"subject": "devices/U-gpu0", "alias": "gpu0", "holds": holds} | fields)


def alert(**fields: Any) -> Alert:
    return Alert(
        **{
            "id": "hungry-1",
            "rule": "hungry",
            "severity": Severity.WARNING,
            "state": AlertState.FIRING,
            "subject": "devices/U-gpu0",
            "since_wall": WALL,
            "fire_wall": WALL,
            "summary": "gpu0: it is hungry",
        }
        | fields
    )


def sight(*samples: Sample, at: float = START, **fields: Any) -> Sight:
    host = fields.pop("host", HostReadings())
    shown = replace(snapshot(*samples, boottime=at), host=host)
    return Sight(**{"now": now(at), "snapshot": shown} | fields)


def card(index: int = 0, at: float = START, **readings: Any) -> Sample:
    used = readings.pop("used", GIB)
    changes = {
        name: readings.pop(name)
        for name in ("health", "thermal", "pressure", "verdict", "health_reason", "xids")
        if name in readings
    }
    made = sample(index, used=used, boottime=at)
    return replace(made, readings=made.readings.changed(**readings), **changes)


def charge(uuid: str = "U-gpu0", **fields: Any) -> Charge:
    return Charge(
        **{
            "uuid": uuid,
            "alias": "gpu0",
            "total_bytes": 24 * GIB,
            "reserve_bytes": 0,
            "granted_bytes": 0,
            "observed_bytes": {},
            "charged_bytes": 0,
            "foreign_bytes": 0,
            "unattributed_bytes": 0,
            "leaked_bytes": 0,
            "grantable_bytes": 0,
            "residue_bytes": 0,
            "unexplained_growth_bytes": 0,
        }
        | fields
    )


def instance(id_: str = "i-1", **fields: Any) -> Instance:
    return Instance(
        **{
            "id": id_,
            "model": "tiny",
            "engine": EngineKind.LLAMA_CPP,
            "owner": "anna",
            "state": InstanceState.READY,
            "options": ModelOptions(),
            "create_wall": WALL,
            "devices": ("U-gpu0",),
        }
        | fields
    )


def reading(id_: str = "i-1", at: float = START, **fields: Any) -> EngineReading:
    return EngineReading(
        **{"instance": id_, "model": "tiny", "boottime": at, "wall": WALL + at - START} | fields
    )
