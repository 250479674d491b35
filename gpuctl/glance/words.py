"""Pure: the few words in which a device, an instance or a delivery is told of in a line."""

from __future__ import annotations

from typing import Any

from gpuctl.messages import known, word
from gpuctl.units import UNKNOWN, compact_size, size_text, used_of
from gpud.v1.alerts_pb2 import Delivery
from gpud.v1.devices_pb2 import (
    Device,
    DeviceHealth,
    DeviceKind,
    Pressure,
    SuggestedAction,
    Thermal,
)
from gpud.v1.instances_pb2 import HealthVerdict, Instance, InstanceState
from gpud.v1.node_pb2 import Engine

_HEAT = {
    Thermal.THERMAL_CRITICAL: "HOT",
    Thermal.THERMAL_THROTTLING: "THROTTLING",
    Thermal.THERMAL_WARNING: "WARM",
}
_ACTIONS = {
    SuggestedAction.SUGGESTED_ACTION_RESTART_APP: "restart what ran on it",
    SuggestedAction.SUGGESTED_ACTION_RESET: "reset it",
    SuggestedAction.SUGGESTED_ACTION_REBOOT: "reboot the host",
    SuggestedAction.SUGGESTED_ACTION_INSPECT: "have it looked at",
}
_SILENT = {DeviceHealth.DEVICE_HEALTH_LOST, DeviceHealth.DEVICE_HEALTH_UNRESPONSIVE}
_ENDED = {InstanceState.INSTANCE_STATE_STOPPED, InstanceState.INSTANCE_STATE_FAILED}
_UNWELL = {HealthVerdict.HEALTH_VERDICT_DEGRADED, HealthVerdict.HEALTH_VERDICT_STUCK}
# Bands that are worth a word, the worst first.
_PRESSURES = (Pressure.PRESSURE_CRITICAL, Pressure.PRESSURE_HIGH)
_THERMALS = tuple(_HEAT)


def is_healthy(device: Device) -> bool:
    """Whether it answers, with all that grants need."""
    return device.health == DeviceHealth.DEVICE_HEALTH_HEALTHY


def answers(device: Device) -> bool:
    """Whether what it showed last is what it shows now; it may still refuse what grants need."""
    return device.health not in _SILENT


def reading_now(device: Device, field: str) -> Any:
    """A reading of its sample, or None where it is unknown, or no longer what it shows."""
    return known(device.sample, field) if answers(device) else None


def reading(device: Device, field: str, unit: str = "") -> str:
    """A whole number with its unit, as the device shows it now; `-` while it is unknown."""
    value = reading_now(device, field)
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def used_text(device: Device) -> str:
    """Used memory of all, as `2.5/6G`."""
    return used_of(reading_now(device, "memory_used_bytes"), known(device, "memory_total_bytes"))


def grantable_now(device: Device) -> int | None:
    """What a Reserve may take; None: nobody knows."""
    grantable: int | None = known(device, "grantable_bytes") if is_healthy(device) else None
    return grantable


def grantable_text(device: Device) -> str:
    """The same for a column."""
    return compact_size(grantable_now(device))


def health_word(device: Device) -> str:
    """One word: of a healthy device that takes nothing new, or is hot, why."""
    if not is_healthy(device):
        return word(device, "health")
    heat = _HEAT.get(device.thermal) if device.HasField("thermal") else None
    mig = "MIG" if device.mig_enabled and device.kind == DeviceKind.DEVICE_KIND_GPU else None
    return "CORDONED" if device.cordoned else heat or mig or word(device, "health")


def device_why(device: Device) -> str:
    """Why it takes nothing new, or what is to be done about it; empty where nothing is."""
    if not is_healthy(device):
        return device.health_reason
    if not device.cordoned:
        return action_text(device)
    return f"cordoned: {device.cordon_reason}" if device.cordon_reason else "cordoned"


def action_text(device: Device) -> str:
    """What is to be done about it, and why; empty for nothing."""
    action = _ACTIONS.get(device.suggested_action)
    return f"{action}: {device.action_reason}" if action else ""


def short_model(device: Device) -> str:
    """The card's name without the maker's words, which say nothing in a column."""
    return device.model_name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def bands_text(devices: list[Device]) -> str:
    """Who is in which band above normal: `pressure CRITICAL gpu0, HIGH gpu3; heat WARNING gpu1`.

    Empty where nobody is.
    """
    told = [
        _banded(devices, "pressure", "pressure", _PRESSURES),
        _banded(devices, "thermal", "heat", _THERMALS),
    ]
    return "; ".join(each for each in told if each)


def _banded(devices: list[Device], field: str, name: str, bands: tuple[Any, ...]) -> str:
    parts = []
    for band in bands:
        inside = [d for d in devices if is_healthy(d) and known(d, field) == band]
        if inside:
            parts.append(f"{word(inside[0], field)} {' '.join(d.alias for d in inside)}")
    return f"{name} {', '.join(parts)}" if parts else ""


def is_over(instance: Instance) -> bool:
    """Ended, one way or another."""
    return instance.state in _ENDED


def is_stopped(instance: Instance) -> bool:
    """Ended as it should; a failed one is still worth seeing."""
    return instance.state == InstanceState.INSTANCE_STATE_STOPPED


def instance_why(instance: Instance) -> str:
    """Why it failed, waits to be started again, or does not serve as it should."""
    is_down = instance.state == InstanceState.INSTANCE_STATE_BACKOFF
    unwell = is_down or instance.health.verdict in _UNWELL
    return instance.failure.message or "; ".join(
        filter(None, (overuse_text(instance), instance.health.reason if unwell else ""))
    )


def overuse_text(instance: Instance) -> str:
    """That it holds more than it was promised; empty where it does not."""
    over = known(instance, "overuse_bytes")
    return f"it holds {size_text(over)} more than it was promised" if over else ""


def _refuses_asleep(instance: Instance) -> bool:
    """Whether it sleeps until somebody wakes it; a llama-server wakes when it is asked."""
    by_itself = instance.sleeping and instance.engine == Engine.ENGINE_LLAMA_CPP
    return not by_itself and (instance.sleeping or instance.HasField("sleep"))


def instance_memory(instance: Instance) -> str:
    """Used of promised, as `700/752M`; `-/752M` before it is measured, `-` where none is held."""
    if is_over(instance) or not instance.reservation:
        return UNKNOWN
    return used_of(known(instance, "measured_bytes"), instance.footprint.total_bytes)


def instance_state(instance: Instance) -> str:
    """With its place in the queue (QUEUED 2), and how it does not serve, or use, as it should."""
    marks = [word(instance, "state")]
    position = known(instance, "queue_position")
    if position is not None:
        marks.append(str(position))
    if instance.health.verdict in _UNWELL:
        marks.append(word(instance.health, "verdict"))
    elif _refuses_asleep(instance):
        marks.append("ASLEEP")
    if known(instance, "overuse_bytes"):
        marks.append("OVERUSE")
    return " ".join(marks)


def tokens_now(instance: Instance) -> float | None:
    """Tokens a second of the last minute; None before the first reading, and while none serves."""
    now: float | None = known(instance.metrics, "generated_tokens_per_second")
    return now


def tokens_text(instance: Instance) -> str:
    """The same for a column."""
    value = tokens_now(instance)
    return UNKNOWN if value is None else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def delivery_text(delivery: Delivery) -> str:
    """How telling a sink of an alert went, or goes."""
    if delivery.delivered:
        return "told"
    waits = f"tried {delivery.attempts}×" if delivery.attempts else "waits"
    return f"{waits if delivery.waiting else 'not told'}: {delivery.problem}".removesuffix(": ")
