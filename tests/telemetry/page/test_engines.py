"""Instances and services, on the native page and on pages of their own; and where they listen."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from typing import Any

from msgspec import structs

from gpud.devices.snapshot import Health
from gpud.instances.health.healing import Healing
from gpud.instances.instance import Instance, InstanceState, Sleep
from gpud.ledger.reservation import Grant, Reservation, ReservationState, ReserveRequest
from gpud.models.model import EngineKind, ModelOptions
from gpud.telemetry.counting import COMMIT_BOUNDS_SECONDS
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.page.native import NativePage
from gpud.telemetry.page.services import Service, ServicePage, engines_of, reservations_of
from gpud.telemetry.page.targets import targets
from tests.fakes.clock import FakeClock
from tests.telemetry.page.exposition import read, value
from tests.telemetry.page.moment import NOW, info, sight, snapshot

OWN = Latency(p50_seconds=0.1, p99_seconds=0.9, source="engine")
SPANS = ("time_to_first_token", "inter_token", "request", "queue", "prefill", "decode")
MEASURED = Latency(p50_seconds=0.2, p99_seconds=None, source="benchmark")


def instance(id_: str = "i-1", **told: Any) -> Instance:
    said: dict[str, Any] = {
        "model": "tiny",
        "engine": EngineKind.LLAMA_CPP,
        "owner": "anna",
        "state": InstanceState.READY,
        "options": ModelOptions(),
        "create_wall": 1.0,
        "endpoint": "http://127.0.0.1:8000",
        "devices": (info(0).uuid,),
        "load_seconds": 2.5,
        "restarts": 1,
    }
    return Instance(id=id_, **said | told)


def reading(id_: str = "i-1", service: str = "", **told: Any) -> EngineReading:
    services = {"service": service} if service else {}
    said: dict[str, Any] = {"model": "tiny", "wall": 1.7e9, **told}
    return EngineReading(instance=id_, boottime=1.0, services=services, **said)


def page(instances: list[Instance], readings: list[EngineReading]) -> str:
    seen = sight(None, instances=instances, readings={each.instance: each for each in readings})
    return NativePage(COMMIT_BOUNDS_SECONDS).render(seen)


def test_one_that_fell_asleep_by_itself_sleeps() -> None:
    """As a llama-server does that nobody asks."""
    for sleeping in (True, False):
        made = page([instance()], [reading(sleeping=sleeping)])
        assert value(made, "gpud_model_sleeping", instance_id="i-1") == sleeping


def test_an_instance_with_what_its_engine_tells() -> None:
    told = reading(
        service="voice",
        running=2,
        slots_full=True,
        kv_used_ratio=0.5,
        generated_tokens_total=1000.0,
        time_to_first_token=OWN,
        request=MEASURED,
    )
    made = page([instance()], [told])
    of = {"instance_id": "i-1", "model": "tiny", "engine": "llama_cpp", "service": "voice"}
    assert value(made, "gpud_model_ready", **of) == 1
    assert value(made, "gpud_model_requests_running", **of) == 2
    assert value(made, "gpud_model_slots_full", **of) == 1
    assert value(made, "gpud_model_generated_tokens_total", **of) == 1000
    assert value(made, "gpud_model_load_duration_seconds", **of) == 2.5
    assert value(made, "gpud_model_restarts_total", **of) == 1
    first = "gpud_model_time_to_first_token_p50_seconds"
    assert value(made, first, **of, source="engine") == 0.1
    assert value(made, "gpud_model_request_p50_seconds", **of, source="benchmark") == 0.2
    # What is not told is absent: no latency of another source, no 99th percentile.
    assert value(made, first, source="benchmark") is None
    assert value(made, "gpud_model_request_p99_seconds") is None
    assert value(made, "gpud_model_requests_waiting") is None


def test_of_an_engine_that_cannot_be_read_again_only_totals_are_told() -> None:
    of: dict[str, Any] = {
        each.name: 1
        for each in fields(EngineReading)
        if each.type in ("float | None", "int | None")
    }
    of |= {"slots_full": True, **dict.fromkeys(SPANS, OWN)}
    made = page([instance()], [reading(**of, problem="it does not answer")])
    whole = page([instance()], [reading(**of)])
    gone = {name for name, _ in read(whole)} - {name for name, _ in read(made)}
    assert {each.removeprefix("gpud_model_") for each in gone} == {
        "requests_running",
        "requests_waiting",
        "slots",
        "slots_full",
        "slots_busy",
        "kv_cache_used_ratio",
        "generated_tokens_per_second",
        "prompt_tokens_per_second",
        "requests_per_second",
        "error_ratio",
        "cache_hit_ratio",
        "request_tokens_per_second",
        *(f"{span}_{quantile}_seconds" for span in SPANS for quantile in ("p50", "p99")),
    }
    assert value(made, "gpud_model_generated_tokens_total") == 1
    assert value(made, "gpud_model_read_timestamp_seconds") == 1.7e9


def test_an_engine_that_told_nothing_yet_was_never_read() -> None:
    made = page([instance()], [reading(problem="it does not answer")])
    assert value(made, "gpud_model_ready") == 1
    assert value(made, "gpud_model_read_timestamp_seconds") is None


def test_instances_by_state_and_those_that_ended_no_more_than_that() -> None:
    gone = instance("i-2", state=InstanceState.FAILED)
    loading = instance("i-3", state=InstanceState.LOADING, load_seconds=None)
    asleep = instance("i-4", sleep=Sleep(level=1, wall=1.0))
    made = page([instance(), gone, loading, asleep], [])
    states = {
        state.value: value(made, "gpud_instances", state=state.value) for state in InstanceState
    }
    assert states == {
        **dict.fromkeys(states, 0.0),
        "ready": 2.0,
        "failed": 1.0,
        "loading": 1.0,
    }
    assert {dict(labels).get("instance_id") for _, labels in read(made)} == {
        None,
        "i-1",
        "i-3",
        "i-4",
    }
    assert value(made, "gpud_model_ready", instance_id="i-3") == 0
    assert value(made, "gpud_model_sleeping", instance_id="i-4") == 1


def test_which_engines_are_for_a_service() -> None:
    known = [reading("a", "voice"), reading("b", "chat"), reading("c")]
    assert [each.instance for each in engines_of("voice", known, "service")] == ["a"]
    # By the model's name, where nobody has labelled anything so.
    assert [each.instance for each in engines_of("tiny", known, "service")] == ["a", "b", "c"]
    assert engines_of("voice", known, "purpose") == ()
    assert engines_of("nothing", known, "service") == ()


def test_which_reservations_are_for_a_service() -> None:
    asked: dict[str, dict[str, Any]] = {
        "labelled": {"labels": {"service": "voice"}},
        "engine": {"instance": "a", "labels": {"service": "voice"}},
        "by-model": {"instance": "b"},
        "inside": {"instance": "c", "within": "labelled"},
        "other": {"instance": "d", "labels": {"service": "chat"}},
    }
    now = FakeClock().now()
    booked = [
        Reservation.asked(id_, ReserveRequest(owner="anna", bytes=7, **told), now)
        for id_, told in asked.items()
    ]

    def found(name: str, *instances: str) -> list[str]:
        return [each.id for each in reservations_of(name, booked, "service", instances)]

    assert found("voice", "a", "c") == ["labelled", "engine"]
    assert found("tiny", "b") == ["by-model"]
    assert found("tiny", "b", "c") == ["by-model", "inside"]
    assert found("nothing") == []


def service(**told: Any) -> Service:
    said: dict[str, Any] = {
        "name": "voice",
        "engines": (),
        "reservations": (),
        "instance_devices": {},
        "samples": snapshot([info(0), info(1)], 1, random.Random(3)).samples,
        "now_boottime": NOW.boottime,
        "host_pressure_events": 4,
        "oom_events": 1,
    }
    return Service(**said | told)


def test_the_page_of_a_service_by_the_names_that_its_people_use() -> None:
    engines = (
        reading("a", generated_tokens_per_second=30.0, waiting=1, request=OWN, load_seconds=3.0),
        reading("b", generated_tokens_per_second=12.0, waiting=2, time_to_first_token=OWN),
    )
    made = ServicePage().render(service(engines=engines, instance_devices={"a": (info(1).uuid,)}))
    names = {name for name, _ in read(made)}
    assert {
        "tokens_per_second",
        "time_to_first_token",
        "request_latency_p99",
        "batch_queue_size",
        "model_loading_time",
        "gpu_utilization_percent",
        "gpu_memory_used_bytes",
        "gpu_temperature_celsius",
        "is_throttled",
        "memory_pressure_events",
        "oom_events",
        "reservations",
    } <= names
    assert value(made, "tokens_per_second", service="voice") == 42
    assert value(made, "batch_queue_size") == 3
    assert value(made, "request_latency_p99", source="engine") == 0.9
    assert value(made, "model_loading_time") == 3
    # Of the cards that it is on.
    assert value(made, "gpu_temperature_celsius", device="gpu1") is not None
    assert value(made, "gpu_temperature_celsius", device="gpu0") is None


def test_memory_pressure_of_a_service_is_that_of_its_cards_and_the_host() -> None:
    cards = [
        replace(each, pressure_events=events)
        for each, events in zip(service().samples, (2, 5), strict=True)
    ]
    on = {"a": (info(1).uuid,)}
    made = ServicePage().render(
        service(engines=(reading("a"),), instance_devices=on, samples=cards)
    )
    assert value(made, "memory_pressure_events") == 4 + 5
    assert value(made, "gpu_memory_pressure_events_total", device="gpu1") == 5
    assert value(made, "gpu_memory_pressure_events_total", device="gpu0") is None


def test_a_service_that_runs_its_own_programs_has_its_promises_there() -> None:
    asked = ReserveRequest(owner="anna", bytes=7, labels={"service": "voice"})
    held = Reservation.asked("r", asked, FakeClock().now())
    grant = Grant(device=info(0).uuid, bytes=7)
    held = structs.replace(held, state=ReservationState.GRANTED, grants=(grant,))
    made = ServicePage().render(service(reservations=(held,)))
    assert value(made, "reservations") == 1
    assert value(made, "reserved_bytes") == 7
    assert value(made, "gpu_power_watts", device="gpu0") is not None
    assert value(made, "tokens_per_second") is None


def test_no_counter_of_a_service_falls_when_one_of_its_engines_is_unloaded() -> None:
    old = reading("a", generated_tokens_total=1000.0, requests_total=10.0, restarts=2)
    new = reading("b", generated_tokens_total=50000.0, requests_total=500.0)
    before = ServicePage().render(service(engines=(old, new)))
    after = ServicePage().render(service(engines=(new,)))
    counted = {
        (name, dict(labels)["instance_id"]): number
        for (name, labels), number in read(before).items()
        if name.endswith("_total")
    }
    assert counted == {
        ("generated_tokens_total", "a"): 1000,
        ("generated_tokens_total", "b"): 50000,
        ("requests_total", "a"): 10,
        ("requests_total", "b"): 500,
        ("restarts_total", "a"): 2,
        ("restarts_total", "b"): 0,
    }
    left = {series: number for series, number in read(after).items() if "_total" in series[0]}
    # A series ends, or goes on where it was: none goes on lower.
    assert len(left) == 3
    assert left.items() <= read(before).items()


def test_what_is_not_known_now_is_not_told_of_a_service() -> None:
    of = {"generated_tokens_per_second": 5.0, "waiting": 1}
    silent = reading("a", problem="it does not answer", generated_tokens_total=9.0, **of)
    lost = [
        replace(each, health=Health.LOST)
        for each in snapshot([info(0)], 1, random.Random(3)).samples
    ]
    made = ServicePage().render(
        service(
            engines=(silent, reading("b", **of)),
            samples=lost,
            instance_devices={"a": (info(0).uuid,)},
        )
    )
    assert value(made, "tokens_per_second") == 5
    assert value(made, "batch_queue_size") == 1
    assert value(made, "instances") == 2
    assert value(made, "generated_tokens_total", instance_id="a") == 9
    assert value(made, "gpu_memory_total_bytes") is not None
    for name in ("gpu_utilization_percent", "gpu_memory_used_bytes", "is_throttled"):
        assert value(made, name) is None


def test_targets_are_those_that_serve_and_have_metrics() -> None:
    instances = [
        instance("i-1", devices=(info(0).uuid, "GPU-gone")),
        instance("i-2", engine=EngineKind.VLLM, api_key_file="/k"),
        instance("i-3", api_key_file="/k"),
        instance("i-4", engine=EngineKind.COMMAND, model="rack"),
        instance("i-5", engine=EngineKind.COMMAND, model="mute"),
        instance("i-6", state=InstanceState.LOADING),
        instance("i-7", endpoint=""),
        instance("i-8", state=InstanceState.STOPPED, healing=Healing()),
    ]
    paths = {"rack": "/stats", "mute": ""}
    told = json.loads(targets(instances, lambda model: paths[model], {info(0).uuid: "gpu0"}))
    assert [each["labels"]["instance"] for each in told] == ["i-1", "i-2", "i-3", "i-4"]
    assert told[0] == {
        "targets": ["127.0.0.1:8000"],
        "labels": {
            "__metrics_path__": "/metrics",
            "instance": "i-1",
            "model": "tiny",
            "engine": "llama_cpp",
            "devices": "gpu0,GPU-gone",
        },
    }
    keyed = [each["labels"].get("__meta_gpud_needs_key") for each in told]
    assert keyed == [None, None, "true", None]
    assert told[3]["labels"]["__metrics_path__"] == "/stats"
    assert json.loads(targets([], lambda _: "", {})) == []


def test_the_service_may_change_while_the_instance_lives() -> None:
    made = NativePage(COMMIT_BOUNDS_SECONDS)
    for name in ("voice", "chat"):
        told = reading(service=name, running=1)
        seen = sight(None, instances=[replace(instance())], readings={"i-1": told})
        assert value(made.render(seen), "gpud_model_requests_running", service=name) == 1
