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
from gpuctl.top.shown.field import (
    Cell,
    Field,
    cell,
    number_field,
    percent_text,
    state_cell,
    text_field,
)
from gpuctl.top.shown.past import busy_percent, full_percent
from gpuctl.units import compact_size
from gpud.v1.devices_pb2 import Device, Pressure, Thermal
from gpud.v1.telemetry_pb2 import HostReadings

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


def _celsius(device: Device) -> float | None:
    celsius: float | None = reading_now(device, "temperature_celsius")
    return celsius


def _watts(device: Device) -> float | None:
    watts: float | None = reading_now(device, "power_watts")
    return watts


def _pressure(device: Device, _: int) -> Cell:
    if not device.HasField("pressure"):
        return cell("")
    return cell(word(device, "pressure"), _PRESSURE.get(device.pressure, "dim"))


def _heat(device: Device, _: int) -> Cell:
    if not device.HasField("thermal"):
        return cell("")
    return cell(word(device, "thermal"), _HEAT.get(device.thermal, "dim"))


def _bytes(field: str, header: str, width: int, rank: int) -> Field[Device]:
    def count(device: Device) -> int | None:
        value: int | None = getattr(device, field) if _is_told(device, field) else None
        return value

    return number_field(header, lambda d: compact_size(count(d)), count, width, rank=rank)


def _is_told(device: Device, field: str) -> bool:
    """Whether it is known: a sum of ours always is."""
    return not device.DESCRIPTOR.fields_by_name[field].has_presence or device.HasField(field)


def device_fields(
    line: Callable[[Device, int], str], host: HostReadings
) -> tuple[Field[Device], ...]:
    """`line`: a device's last minutes in so many characters; `host`: of the host beside them."""

    def busy(device: Device) -> float | None:
        return busy_percent(device, host)

    return (
        Field(
            header="DEVICE",
            cell=lambda device, _: cell(clean(device.alias), "strong"),
            # As text, so that it rises; `host`, which has no index, comes after all digits.
            key=lambda device: f"{device.index:06}" if device.HasField("index") else device.alias,
            width=6,
            grows=4,
        ),
        text_field("MODEL", lambda d: clean(short_model(d)), 10, grows=26, rank=5),
        Field(header="MEMORY", cell=bar_cell, key=full_percent, width=8, grows=31, least=5),
        number_field("USED", used_text, lambda d: reading_now(d, "memory_used_bytes"), 10, rank=1),
        Field(header="PRESSURE", cell=_pressure, key=full_percent, width=8, rank=4),
        number_field("FREE", grantable_text, grantable_now, 5, rank=2),
        _bytes("granted_bytes", "GRANTED", 7, 7),
        _bytes("foreign_bytes", "FOREIGN", 7, 8),
        number_field("UTIL", lambda d: percent_text(busy(d)), busy, 4),
        Field(
            header="5 MIN",
            cell=lambda device, width: ((line(device, width), "own"),),
            key=busy,
            width=5,
            grows=20,
            rank=3,
        ),
        Field(header="TEMP", cell=_temperature, key=_celsius, width=5, right=True),
        Field(header="HEAT", cell=_heat, key=_celsius, width=10, rank=6),
        number_field("POWER", lambda d: reading(d, "power_watts", "W"), _watts, 5, rank=9),
        Field(
            header="HEALTH",
            cell=lambda device, _: state_cell(health_word(device)),
            key=health_word,
            width=12,
            least=8,
        ),
    )


def device_text(device: Device) -> str:
    """What a filter looks into."""
    words = (device.alias, device.name, device.model_name, health_word(device))
    bands = (word(device, "pressure"), word(device, "thermal"), word(device, "kind"))
    return clean(" ".join((*words, *bands, known(device, "pci_bus_id") or "")))
