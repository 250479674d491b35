"""Pure: one device or one instance, looked at closely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gpuctl.glance.split import device_bar
from gpuctl.glance.words import (
    device_why,
    grantable_text,
    health_word,
    instance_memory,
    instance_state,
    instance_why,
    reading,
    reading_now,
    used_text,
)
from gpuctl.messages import known, seconds_of, word
from gpuctl.plotting.braille import COLUMNS, plot
from gpuctl.plotting.grid import apart, cells, filled
from gpuctl.plotting.values import value_text
from gpuctl.tables import clean
from gpuctl.top.shown.devices import BAR_TONES, bar_cell
from gpuctl.top.shown.field import Cell, cell, percent_text, state_cell
from gpuctl.top.shown.instances import p99_seconds
from gpuctl.top.shown.told import Focus, Told
from gpuctl.units import UNKNOWN, compact_size, span_text
from gpud.v1.devices_pb2 import Device, DeviceProcess
from gpud.v1.history_pb2 import Series
from gpud.v1.instances_pb2 import Instance, Latency

# Ten minutes, as they are asked for.
WINDOW_SECONDS: Final = 600.0
_PLOT_HEIGHT = 4
_MARGIN = 10


def device_lines(told: Told, device: Device, width: int) -> Iterator[Cell]:
    """Its readings, who is on it, and its last ten minutes."""
    yield _titled(device.alias, f"{device.model_name}  {device.name}", health_word(device))
    why = device_why(device)
    if why:
        yield ((clean(why), "warn"),)
    yield from _pairs(width, *_readings(device))
    yield ((f"{used_text(device)} used  ", ""), *bar_cell(device, max(10, width - 30)))
    yield _legend(device)
    yield from _pairs(
        width,
        ("grantable", grantable_text(device)),
        ("granted", compact_size(device.granted_bytes)),
        ("foreign", compact_size(known(device, "foreign_bytes"))),
        ("unattributed", compact_size(known(device, "unattributed_bytes"))),
        ("leaked", compact_size(device.leaked_bytes)),
        ("reserve", compact_size(device.reserve_bytes)),
    )
    yield from _processes(device)
    yield from _on_device(told, device.name)
    yield from _plots(told, device.name, width, lambda field: reading_now(device, field))


def _readings(device: Device) -> tuple[tuple[str, str], ...]:
    throttle = ",".join(device.sample.throttle_reasons) if device.sample.throttled else ""
    return (
        ("util", reading(device, "utilization_percent", "%")),
        ("temp", reading(device, "temperature_celsius", "°C")),
        ("power", reading(device, "power_watts", "W")),
        ("of", reading(device, "power_limit_watts", "W")),
        ("clock", reading(device, "sm_clock_mhz", "MHz")),
        ("fan", reading(device, "fan_percent", "%")),
        ("pressure", word(device, "pressure")),
        ("heat", word(device, "thermal")),
        ("throttled", throttle or "no" if device.sample.HasField("throttled") else UNKNOWN),
    )


def _legend(device: Device) -> Cell:
    """What the marks of its bar are."""
    told: list[tuple[str, str]] = []
    for part, _ in device_bar(device, 40):
        told += [(f"{part.mark} ", BAR_TONES[part]), (f"{part.says}  ", "dim")]
    return tuple(told)


def _processes(device: Device) -> Iterator[Cell]:
    if not device.sample.processes:
        yield (("processes  ", "dim"), ("none that it tells of", ""))
        return
    yield (("     PID    USED  RELATION    RESERVATION  PROCESS", "dim"),)
    for process in device.sample.processes:
        yield _process(process)


def _process(process: DeviceProcess) -> Cell:
    relation = word(process, "relation")
    owner = process.reservation.removeprefix("reservations/") or UNKNOWN
    used = compact_size(known(process, "used_bytes"))
    tone = {"TRESPASSER": "bad", "FOREIGN": "foreign"}.get(relation, "")
    return (
        (f"{process.pid:>8}  {used:>6}  ", ""),
        (f"{relation:<10}", tone),
        (f"  {clean(owner):<11}  {clean(process.process_name)}", ""),
    )


def _on_device(told: Told, name: str) -> Iterator[Cell]:
    """The promises on it, and the instances."""
    for held in told.holders:
        for grant in held.grants:
            if grant.device == name:
                used = compact_size(known(grant, "observed_bytes"))
                yield (
                    (clean(held.name), "strong"),
                    (f"  {compact_size(grant.bytes)} promised, {used} in use", ""),
                    (f"  {clean(held.owner)}  {clean(held.instance)}", "dim"),
                )
    for instance in told.instances:
        if name in instance.devices:
            yield (
                (clean(instance.name), "strong"),
                (f"  {clean(instance.model)}  ", ""),
                *state_cell(instance_state(instance)),
                (f"  {clean(instance.endpoint)}", "dim"),
            )


def instance_lines(told: Told, instance: Instance, width: int) -> Iterator[Cell]:
    """Its life, its health, what it does, and its last ten minutes."""
    state = instance_state(instance)
    yield _titled(instance.name.removeprefix("instances/"), instance.model, state)
    why = instance_why(instance) or instance.wait_reason or instance.last_exit.meaning
    if why:
        yield ((clean(why), "warn"),)
    yield from _pairs(
        width,
        ("on", told.aliases(instance.devices)),
        ("memory", instance_memory(instance)),
        ("pid", str(known(instance, "pid") or UNKNOWN)),
        ("endpoint", instance.endpoint),
        ("owner", instance.owner),
        ("restarts", str(instance.restarts)),
    )
    yield from _pairs(width, *_phases(instance))
    health = instance.health
    yield from _pairs(
        width,
        ("health", word(health, "verdict")),
        ("failures", str(health.failures)),
        ("sleeping", "yes" if instance.sleeping else "no"),
    )
    yield from _metrics(instance, width)
    yield from _plots(told, instance.name, width, lambda field: known(instance.metrics, field))


def _phases(instance: Instance) -> Iterator[tuple[str, str]]:
    for number, timing in enumerate(instance.phases):
        name = word(timing, "phase").lower()
        took = span_text(seconds_of(timing.duration))
        yield (name if number else f"phases: {name}", took)


def _metrics(instance: Instance, width: int) -> Iterator[Cell]:
    metrics = instance.metrics
    if metrics.problem:
        yield ((clean(metrics.problem), "warn"),)

    def number(field: str, scale: float = 1.0, unit: str = "") -> str:
        value = known(metrics, field)
        return UNKNOWN if value is None else f"{value * scale:.3g}{unit}"

    yield from _pairs(
        width,
        ("tokens/s", number("generated_tokens_per_second")),
        ("prompt/s", number("prompt_tokens_per_second")),
        ("running", number("requests_running")),
        ("of", number("slots")),
        ("waiting", number("requests_waiting")),
        ("requests/s", number("requests_per_second")),
        ("errors", number("error_ratio", 100, "%")),
    )
    yield from _pairs(
        width,
        ("first token", _quantiles(metrics.time_to_first_token)),
        ("request", _quantiles(metrics.request)),
        ("kv", percent_text(known(metrics, "kv_used_percent"))),
        ("cached", number("cache_hit_ratio", 100, "%")),
    )


def _quantiles(latency: Latency) -> str:
    p50 = seconds_of(latency.p50) if latency.HasField("p50") else None
    mark = " (bench)" if latency.source == "benchmark" else ""
    both = (p50, p99_seconds(latency))
    return UNKNOWN if both == (None, None) else "/".join(map(span_text, both)) + mark


def _plots(
    told: Told, name: str, width: int, now: Callable[[str], float | None]
) -> Iterator[Cell]:
    """What gpud kept of it, and what it shows `now`; nothing where gpud keeps nothing."""
    focus = told.focus if told.focus is not None and told.focus.name == name else Focus(name=name)
    end = seconds_of(told.snapshot.time)
    for series in focus.series:
        if series.points:
            value = value_text(now(series.field), series.unit)
            yield ((f"{series.field}, 10 minutes until now: {value}", "dim"),)
            for line in _plotted(series, end, width):
                yield ((line, "own"),)


def _plotted(series: Series, end: float, width: int) -> Iterable[str]:
    count = max(1, width - _MARGIN) * COLUMNS
    points = [(seconds_of(p.time), p.mean, p.count) for p in series.points]
    drawn = cells(points, end - WINDOW_SECONDS, end, count)
    longest = int(apart(points) / (WINDOW_SECONDS / count)) + 1
    return plot(filled(drawn, longest), _PLOT_HEIGHT, lambda v: value_text(v, series.unit))


def _titled(name: str, more: str, state: str) -> Cell:
    # The state first: a name may be longer than the line.
    return (*state_cell(state), (f"  {clean(name)}", "strong"), (f"  {clean(more)}", ""))


def _pairs(width: int, *pairs: tuple[str, str]) -> Iterator[Cell]:
    """`util 37%  temp 61°C`, over as many lines as it needs: what is unknown as a dash."""
    told: list[tuple[str, str]] = []
    taken = 0
    for name, value in pairs:
        shown = cell(clean(value))
        length = len(name) + 1 + sum(len(text) for text, _ in shown)
        if told and taken + length > width:
            yield tuple(told)
            told, taken = [], 0
        told += [(f"{name} ", "dim"), *shown, ("  ", "")]
        taken += length + 2
    if told:
        yield tuple(told)
