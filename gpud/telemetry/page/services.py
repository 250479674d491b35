"""Pure: the page of one service, /metrics/NAME, by the short names that its people look for.

What it runs (the engines whose label or model has the name), what it was promised (reservations
with the label, and those of its engines), and the cards where that is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.devices.verdict.throttling import is_throttled
from gpud.ledger.reservation import Reservation
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.engines.services import ServiceReading, by_service
from gpud.telemetry.page.cards import devices_now
from gpud.telemetry.page.engines import by_source, engine_now
from gpud.telemetry.page.table import Row, Table, counter, gauge, labelled

_SERVICE = (
    gauge("tokens_per_second", "Tokens generated, over the last minute."),
    gauge("requests_per_second", "Requests that ended, over the last minute."),
    gauge("batch_queue_size", "Requests that wait in the queues of its engines."),
    gauge("batch_size", "Requests in work."),
    gauge("error_ratio", "Share of requests that failed."),
    gauge("kv_cache_used_ratio", "Of the engine whose KV cache is the fullest."),
    gauge("model_loading_time", "Seconds from a load's start until it served; of the slowest."),
    gauge("instances", "Engines that serve it."),
    gauge("reservations", "Reservations with its label, and of its engines."),
    gauge("reserved_bytes", "Bytes promised to these."),
    gauge("memory_pressure_events", "How often its devices and the host came under it."),
    gauge("oom_events", "How often an engine was given up or restarted for want of memory."),
)
# One line for each engine: a sum of those that run falls with every one that is unloaded, and
# rate() takes a counter that falls for one that began anew.
_ENGINE = (
    counter("generated_tokens_total", "Tokens generated, by engine."),
    counter("requests_total", "Requests that ended, by engine."),
    counter("restarts_total", "How often an engine was started again."),
)
_LATENCY = (
    gauge("time_to_first_token", "Median, in seconds; source: engine or benchmark."),
    gauge("time_to_first_token_p99", "In seconds."),
    gauge("request_latency_p50", "In seconds."),
    gauge("request_latency_p99", "In seconds."),
)
_CARD = (
    gauge("gpu_utilization_percent", "Of the cards that it is on."),
    gauge("gpu_memory_used_bytes", "By whomever."),
    gauge("gpu_memory_total_bytes", "Memory of the card."),
    gauge("gpu_temperature_celsius", "Heat of the card."),
    gauge("gpu_power_watts", "Power drawn now."),
    gauge("is_throttled", "Whether power, heat or the board hold clocks down.", form="%d"),
    counter("gpu_memory_pressure_events_total", "How often it came to be critically full."),
)
_counted: Callable[[EngineReading], Row] = attrgetter(
    "generated_tokens_total", "requests_total", "restarts"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service at one moment. `samples` are the newest of all devices."""

    name: str
    engines: Sequence[EngineReading]
    reservations: Sequence[Reservation]  # that are booked, for it
    instance_devices: Mapping[str, tuple[str, ...]]  # UUIDs by instance
    samples: Sequence[Sample]
    now_boottime: float
    host_pressure_events: int
    oom_events: int


class ServicePage:
    """The pages of all services; made for each anew, for they are small and rarely asked for."""

    def render(self, service: Service) -> str:
        """The page of one."""
        label = labelled(service=service.name)
        told = _together(service)
        spans = by_source(label, (told.time_to_first_token, told.request) if told else ())
        cards = [
            each
            for each in devices_now(service.samples, service.now_boottime)
            if each.info.uuid in _devices(service) and each.info.kind is not DeviceKind.HOST
        ]
        names = tuple(
            f"{label},{labelled(device=each.info.alias, uuid=each.info.uuid)}" for each in cards
        )
        return "".join(
            (
                Table(_SERVICE).render((label,), [_service(service, told)]),
                Table(_ENGINE).render(
                    tuple(
                        f"{label},{labelled(instance_id=each.instance)}"
                        for each in service.engines
                    ),
                    [_counted(each) for each in service.engines],
                ),
                Table(_LATENCY).render(
                    tuple(labels for labels, _ in spans), [row for _, row in spans]
                ),
                Table(_CARD).render(names, [_card(each) for each in cards]),
            )
        )


def engines_of(
    name: str, readings: Iterable[EngineReading], label: str
) -> tuple[EngineReading, ...]:
    """Those that are for a service; where none says so, those of the model of that name."""
    known = tuple(readings)
    labelled_ = tuple(each for each in known if each.services.get(label) == name)
    return labelled_ or tuple(each for each in known if each.model == name)


def reservations_of(
    name: str, booked: Iterable[Reservation], label: str, instances: Collection[str]
) -> tuple[Reservation, ...]:
    """Those for a service, and of its instances; one inside another of them is part of that."""
    own = {
        each.id: each
        for each in booked
        if each.request.labels.get(label) == name or each.instance in instances
    }
    return tuple(each for each in own.values() if each.within not in own)


def _together(service: Service) -> ServiceReading | None:
    """Its engines as one, whatever made them its own."""
    label = "service"
    engines = [
        replace(engine_now(each), services={label: service.name}) for each in service.engines
    ]
    return by_service(engines, label).get(service.name)


def _devices(service: Service) -> set[str]:
    held = {grant.device for each in service.reservations for grant in each.grants}
    return held.union(*(service.instance_devices.get(e.instance, ()) for e in service.engines))


def _service(service: Service, told: ServiceReading | None) -> Row:
    reserved = sum(grant.bytes for each in service.reservations for grant in each.grants)
    devices = _devices(service)
    on = [each for each in service.samples if each.info.uuid in devices]
    engines: Row = (None,) * 7
    if told is not None:
        engines = (
            told.generated_tokens_per_second,
            told.requests_per_second,
            told.waiting,
            told.running,
            told.error_ratio,
            told.kv_used_ratio,
            told.load_seconds,
        )
    return (
        *engines,
        len(service.engines),
        len(service.reservations),
        reserved,
        service.host_pressure_events + sum(each.pressure_events for each in on),
        service.oom_events,
    )


def _card(sample: Sample) -> Row:
    readings = sample.readings
    return (
        readings.utilization_percent,
        readings.memory_used_bytes,
        sample.info.memory_total_bytes,
        readings.temperature_celsius,
        readings.power_watts,
        is_throttled(readings.throttle_reasons),
        sample.pressure_events,
    )
