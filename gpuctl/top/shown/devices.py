"""Pure: the list of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuctl.glance.split import Part, device_bar
from gpuctl.glance.words import (
    grantable_now,
    grantable_text,
    health_word,
    reading,
    reading_now,
    short_model,
    used_text,
)
from gpuctl.messages import known, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Cell, Field, cell, state_cell, text_field
from gpuctl.top.shown.past import full_percent
from gpuctl.units import compact_size
from gpud.v1.devices_pb2 import Device, Pressure, Thermal

BAR_TONES: Final = {
    Part.OWN: "own",
    Part.PROMISED: "promised",
    Part.FOREIGN: "foreign",
    Part.LEAKED: "bad",
    Part.FREE: "dim",
    Part.UNKNOWN: "dim",
}
_PRESSURE = {
    Pressure.PRESSURE_HIGH: "warn",
    Pressure.PRESSURE_CRITICAL: "bad",
}
_HEAT = {
    Thermal.THERMAL_WARNING: "warn",
    Thermal.THERMAL_THROTTLING: "bad",
    Thermal.THERMAL_CRITICAL: "bad",
}


def bar_cell(device: Device, width: int) -> Cell:
    """Its bytes, by who has them."""
    return tuple((part.mark * count, BAR_TONES[part]) for part, count in device_bar(device, width))


def _temperature(device: Device, _: int) -> Cell:
    text = reading(device, "temperature_celsius", "°C")
    return cell(text, _HEAT.get(device.thermal, "") if device.HasField("thermal") else "")


def _pressure(device: Device, _: int) -> Cell:
    if not device.HasField("pressure"):
        return cell("")
    return cell(word(device, "pressure"), _PRESSURE.get(device.pressure, "dim"))


def _heat(device: Device, _: int) -> Cell:
    if not device.HasField("thermal"):
        return cell("")
    return cell(word(device, "thermal"), _HEAT.get(device.thermal, "dim"))


def _number(field: str, header: str, unit: str, width: int, rank: int = 0) -> Field[Device]:
    return Field(
        header=header,
        cell=lambda device, _: cell(reading(device, field, unit)),
        key=lambda device: reading_now(device, field),
        width=width,
        right=True,
        rank=rank,
    )


def _bytes(field: str, header: str, width: int, rank: int) -> Field[Device]:
    def count(device: Device) -> int | None:
        value: int | None = getattr(device, field) if _is_told(device, field) else None
        return value

    return Field(
        header=header,
        cell=lambda device, _: cell(compact_size(count(device))),
        key=count,
        width=width,
        right=True,
        rank=rank,
    )


def _is_told(device: Device, field: str) -> bool:
    """Whether it is known: a sum of ours always is."""
    return not device.DESCRIPTOR.fields_by_name[field].has_presence or device.HasField(field)


def device_fields(line: Callable[[str, int], str]) -> tuple[Field[Device], ...]:
    """`line`: a device's last minutes in so many characters, by its name."""
    return (
        Field(
            header="DEVICE",
            cell=lambda device, _: cell(clean(device.alias), "strong"),
            key=lambda device: device.index if device.HasField("index") else device.alias,
            width=6,
            grows=4,
        ),
        text_field("MODEL", lambda d: clean(short_model(d)), 10, grows=26, rank=1),
        Field(header="MEMORY", cell=bar_cell, key=full_percent, width=9, grows=30),
        Field(
            header="USED",
            cell=lambda device, _: cell(used_text(device)),
            key=lambda device: reading_now(device, "memory_used_bytes"),
            width=10,
            right=True,
        ),
        Field(header="PRESSURE", cell=_pressure, key=full_percent, width=8),
        Field(
            header="FREE",
            cell=lambda device, _: cell(grantable_text(device)),
            key=grantable_now,
            width=5,
            right=True,
        ),
        _bytes("granted_bytes", "GRANTED", 7, 3),
        _bytes("foreign_bytes", "FOREIGN", 7, 4),
        _number("utilization_percent", "UTIL", "%", 4),
        Field(
            header="5 MIN",
            cell=lambda device, width: ((line(device.name, width), "own"),),
            key=lambda device: reading_now(device, "utilization_percent"),
            width=5,
            grows=20,
        ),
        Field(
            header="TEMP",
            cell=_temperature,
            key=lambda device: reading_now(device, "temperature_celsius"),
            width=5,
            right=True,
        ),
        Field(
            header="HEAT",
            cell=_heat,
            key=lambda device: reading_now(device, "temperature_celsius"),
            width=10,
            rank=2,
        ),
        _number("power_watts", "POWER", "W", 5, 5),
        Field(
            header="HEALTH",
            cell=lambda device, _: state_cell(health_word(device)),
            key=health_word,
            width=12,
        ),
    )


def device_text(device: Device) -> str:
    """What a filter looks into."""
    words = (device.alias, device.name, device.model_name, health_word(device))
    bands = (word(device, "pressure"), word(device, "thermal"), word(device, "kind"))
    return clean(" ".join((*words, *bands, known(device, "pci_bus_id") or "")))
