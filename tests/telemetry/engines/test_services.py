"""What engines tell, by the service that they are for."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.ledger.reservation import Reservation, ReserveRequest
from gpud.models.model import EngineKind, Model, ModelOptions
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.engines.services import by_service, services_of
from tests.fakes.clock import FakeClock

VOICED = Model(
    id="tiny",
    engine=EngineKind.LLAMA_CPP,
    kind=None,
    path="t",
    options=ModelOptions(),
    labels=(("service", "voice"), ("team", "a")),
)


def engine(id_: str, service: str | None, **told: Any) -> EngineReading:
    services = {"service": service} if service else {}
    said: dict[str, Any] = {"model": "tiny", **told}
    return EngineReading(instance=id_, boottime=1.0, wall=1.0, services=services, **said)


def held(**labels: str) -> Reservation:
    request = ReserveRequest(owner="anna", bytes=1, labels=labels)
    return Reservation.asked("r", request, FakeClock().now())


@pytest.mark.parametrize(
    ("reservations", "service"),
    [
        ([], "voice"),
        ([held()], "voice"),
        ([held(service="")], "voice"),
        ([held(service="chat")], "chat"),
        ([held(), held(service="search")], "search"),
        ([held(service="chat"), held(service="search")], "chat"),
    ],
)
def test_the_nearest_label_says_which(reservations: list[Reservation], service: str) -> None:
    assert services_of(VOICED, reservations, "service") == {"service": service}


def test_without_a_label_it_is_for_none() -> None:
    assert services_of(None, [held(team="b")], "service") == {}
    assert services_of(VOICED, [], "purpose") == {}
    assert services_of(VOICED, [], "team") == {"team": "a"}


def test_engines_of_one_service_are_told_of_together() -> None:
    chat = Latency(p50_seconds=0.1, p99_seconds=4.0, source="engine")
    slow = Latency(p50_seconds=0.3, p99_seconds=None, source="engine")
    found = by_service(
        [
            engine("b", "chat", running=4, slots=4, slots_full=True, requests_per_second=9.0,
                   error_ratio=0.0, request=chat, kv_used_ratio=0.5, restarts=1),
            engine("a", "chat", running=1, slots=4, slots_full=False, requests_per_second=1.0,
                   error_ratio=0.5, request=slow, kv_used_ratio=0.2, model="other"),
            engine("c", "voice", generated_tokens_per_second=5.0),
            engine("d", None, running=7),
        ],
        "service",
    )  # fmt: skip
    assert list(found) == ["chat", "voice"]
    told = found["chat"]
    assert (told.instances, told.models) == (("a", "b"), ("other", "tiny"))
    assert (told.running, told.slots, told.slots_full, told.waiting) == (5, 8, False, None)
    assert (told.requests_per_second, told.kv_used_ratio, told.restarts) == (10, 0.5, 1)
    assert told.error_ratio == pytest.approx(0.05)
    assert told.request == Latency(p50_seconds=0.3, p99_seconds=4.0, source="engine")
    assert (found["voice"].running, found["voice"].slots_full) == (None, None)
    assert by_service([engine("a", "chat")], "other") == {}


def test_full_is_a_service_of_which_all_engines_are() -> None:
    full = by_service(
        [engine("a", "x", slots_full=True), engine("b", "x", slots_full=True)], "service"
    )
    assert full["x"].slots_full is True


def test_of_benchmarks_and_engines_the_engines_count() -> None:
    once = Latency(p50_seconds=9.0, p99_seconds=9.0, source="benchmark")
    now = Latency(p50_seconds=0.1, p99_seconds=0.2, source="engine")
    assert (
        by_service([engine("a", "x", request=once), engine("b", "x", request=now)], "service")[
            "x"
        ].request
        == now
    )
    assert by_service([engine("a", "x", request=once)], "service")["x"].request == once


def test_ratios_of_idle_engines_weigh_alike() -> None:
    told = by_service(
        [engine("a", "x", cache_hit_ratio=0.2), engine("b", "x", cache_hit_ratio=0.4)], "service"
    )
    assert told["x"].cache_hit_ratio == pytest.approx(0.3)
