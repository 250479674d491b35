"""The page at /metrics: everything that is seen is on it, and nothing that is not."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpud.access.auditing.calls import Calls
from gpud.clock import Moment
from gpud.devices.snapshot import (
    Action,
    Health,
    HostReadings,
    Readings,
    Snapshot,
    Thermal,
    Trouble,
    Verdict,
)
from gpud.ledger.books import Books, Cordon
from gpud.ledger.charge import STALE_SECONDS
from gpud.ledger.reservation import (
    Deadline,
    Grant,
    Priority,
    Reservation,
    ReservationState,
    ReserveRequest,
)
from gpud.telemetry.counting import COMMIT_BOUNDS_SECONDS
from gpud.telemetry.page.devices import Promised
from gpud.telemetry.page.native import NativePage, Sight
from tests.telemetry.page.exposition import read, value
from tests.telemetry.page.moment import NOW, SILENT, charge, info, node, sight, snapshot

# What is told in another form: as a label, or from what follows from it.
TOLD_OTHERWISE = {"compute_mode", "recovery_action"}


def seen(cards: int = 2) -> Snapshot:
    return snapshot([info(index) for index in range(cards)], 3, random.Random(1))


def page(of: Sight) -> str:
    return NativePage(COMMIT_BOUNDS_SECONDS).render(of)


def first(of: Snapshot, **changes: object) -> Snapshot:
    """With its first card changed."""
    card = replace(of.samples[0], **changes)  # type: ignore[arg-type]
    return replace(of, samples=(card, *of.samples[1:]))


def test_promtool_has_nothing_against_it(prometheus_bin: Path) -> None:
    calls = Calls()
    calls.of("gpud.v1.NodeService/GetNode", "unary").ended("OK", 0.001)
    calls.of("gpud.v1.NodeService/WatchEvents", "server_stream").ended("CANCELLED", 5.0)
    told = page(sight(seen(), calls=calls.called()))
    checked = subprocess.run(
        [prometheus_bin / "promtool", "check", "metrics"],
        input=told,
        text=True,
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert len(read(told)) > 200


@pytest.mark.parametrize("name", sorted(set(Readings.__struct_fields__) - TOLD_OTHERWISE))
def test_every_reading_of_a_card_is_there_and_gone_when_it_is_unknown(name: str) -> None:
    whole = seen(1)
    without = first(whole, readings=whole.samples[0].readings.changed(**{name: None}))
    missing = read(page(sight(whole))).keys() - read(page(sight(without))).keys()
    assert missing
    assert all(each.startswith("gpud_gpu_") for each, _ in missing)


@pytest.mark.parametrize("name", sorted(HostReadings.__slots__))
def test_every_reading_of_the_host_changes_the_page(name: str) -> None:
    whole = seen(1)
    without = replace(whole, host=replace(whole.host, **{name: getattr(HostReadings(), name)}))
    assert page(sight(whole)) != page(sight(without))


def test_units_are_base_units() -> None:
    told = seen(1)
    readings = told.samples[0].readings.changed(
        utilization_percent=87.5, sm_clock_mhz=1410, throttle_reasons=("idle", "thermal")
    )
    made = page(sight(first(told, readings=readings)))
    assert value(made, "gpud_gpu_utilization_ratio") == 0.875
    assert value(made, "gpud_gpu_sm_clock_hertz") == 1.41e9
    assert value(made, "gpud_gpu_throttled") == 1
    assert value(made, "gpud_gpu_throttle_active", reason="thermal") == 1
    assert value(made, "gpud_gpu_throttle_active", reason="power_cap") == 0
    assert value(made, "gpud_gpu_xid_errors_total", xid="31") == 2
    assert value(made, "gpud_host_cpu_utilization_ratio") == 0.5
    assert value(made, "gpud_host_pressure_stall_ratio", resource="memory", tasks="some") == 0.125


def test_a_device_that_is_lost_tells_no_bytes_that_follow_from_readings() -> None:
    lost = first(seen(1), health=Health.LOST, verdict=Verdict(action=Action.REBOOT))
    made = page(sight(lost))
    assert value(made, "gpud_device_health", health="lost") == 1
    assert value(made, "gpud_device_health", health="healthy") == 0
    assert value(made, "gpud_device_suggested_action") == 4
    assert value(made, "gpud_device_grantable_bytes") is None
    assert value(made, "gpud_device_foreign_bytes") is None
    assert value(made, "gpud_device_reserve_bytes") == 1 << 29


@pytest.mark.parametrize("changes", SILENT.values(), ids=SILENT)
def test_of_a_device_that_does_not_answer_only_what_outlasts_the_moment_is_told(
    changes: dict[str, Any],
) -> None:
    gone = first(seen(1), **changes)
    made = page(sight(gone))
    told = {name for name, _ in read(made) if name.startswith("gpud_gpu_")}
    assert told == {
        "gpud_gpu_memory_total_bytes",
        "gpud_gpu_xid_errors_total",
        "gpud_gpu_energy_joules_total",
        "gpud_gpu_ecc_errors_total",
        "gpud_gpu_remapped_rows_total",
        "gpud_gpu_retired_pages_total",
        "gpud_gpu_pcie_replays_total",
        "gpud_gpu_nvlink_errors_total",
    }
    assert value(made, "gpud_device_sample_timestamp_seconds") == gone.samples[0].wall
    for name in ("thermal", "pressure", "processes", "observed_bytes", "grantable_bytes"):
        assert value(made, f"gpud_device_{name}") is None, name
    # It is not forgotten that it was too hot, and how often too full.
    full = page(sight(first(gone, pressure_events=3)))
    assert value(full, "gpud_device_memory_pressure_events_total") == 3
    hot = page(sight(first(gone, thermal=Thermal.CRITICAL)))
    assert value(hot, "gpud_device_thermal") == Thermal.CRITICAL


@pytest.mark.parametrize(
    ("troubles", "shown"),
    [
        ((), 0),
        ((Trouble(driver="nvml", reason="it hangs", device="GPU-b"),), 1),
        ((Trouble(driver="nvml", reason="not loaded", is_wanted=True),), 2),
    ],
)
def test_a_driver_tells_whether_it_can_be_used(troubles: tuple[Trouble, ...], shown: int) -> None:
    made = page(sight(None, node=node(troubles=troubles)))
    assert value(made, "gpud_driver_problem", driver="nvml") == shown


def test_a_sample_that_is_not_yet_stale_is_told_whole() -> None:
    late = first(seen(1), boottime=NOW.boottime - STALE_SECONDS)
    assert page(sight(late)) == page(sight(seen(1)))


def test_before_the_first_snapshot_the_daemon_still_tells_of_itself() -> None:
    made = page(sight(None, node=node(state="RECONCILING", ticks=0, snapshot_wall=None)))
    assert value(made, "gpud_node_state", state="reconciling") == 1
    assert value(made, "gpud_snapshot_timestamp_seconds") is None
    assert value(made, "gpud_reservations", state="granted") == 0
    assert "gpud_device" not in made


def held(id_: str, state: ReservationState, ago: float, **asked: object) -> Reservation:
    moment = Moment(boot_id=NOW.boot_id, boottime=NOW.boottime - ago, wall=NOW.wall - ago)
    request = ReserveRequest(owner="anna", bytes=10, **asked)  # type: ignore[arg-type]
    return Reservation(
        id=id_,
        request=request,
        kind=Reservation.asked(id_, request, moment).kind,
        state=state,
        created=Deadline.after(moment, 0),
        grants=() if state is ReservationState.QUEUED else (Grant(device=info(0).uuid, bytes=10),),
    )


def test_promises_by_state_and_by_who_holds_them() -> None:
    books, device = Books(), info(0)
    books.put(held("r-1", ReservationState.GRANTED, 5))
    books.put(held("r-2", ReservationState.GRANTED, 5, instance="i-1"))
    books.put(held("r-3", ReservationState.GRANTED, 5, standing=True))
    books.put(held("r-4", ReservationState.RELEASING, 5))
    books.put(held("r-5", ReservationState.QUEUED, 42, priority=Priority.BATCH))
    books.put(held("r-6", ReservationState.QUEUED, 2))
    books.set_cordon(device.uuid, Cordon(reason="", actor="", wall=0))
    promised = Promised(
        charges={device.uuid: charge(device, granted_bytes=40, observed_bytes={"r-1": 7})},
        books=books,
        of_instances={device.uuid: 10},
    )
    made = page(sight(seen(1), promised=promised))
    states = {
        each: value(made, "gpud_reservations", state=each)
        for each in ("granted", "queued", "releasing")
    }
    assert states == {"granted": 3, "queued": 2, "releasing": 1}
    kinds = {
        each: value(made, "gpud_device_granted_bytes", owner_kind=each)
        for each in ("instance", "lease", "standing")
    }
    assert kinds == {"instance": 10, "lease": 20, "standing": 10}
    assert value(made, "gpud_device_observed_bytes") == 7
    assert value(made, "gpud_queue_depth", priority="batch") == 1
    assert value(made, "gpud_queue_oldest_wait_seconds") == 42
    assert value(made, "gpud_device_cordoned") == 1


def test_calls_by_method_and_how_they_ended() -> None:
    calls = Calls()
    reserve = calls.of("gpud.v1.ReservationService/Reserve", "unary")
    assert calls.of("gpud.v1.ReservationService/Reserve", "unary") is reserve
    calls.of("gpud.v1.NodeService/GetNode", "unary")
    for code, seconds in (("OK", 0.004), ("OK", 0.2), ("RESOURCE_EXHAUSTED", 0.001)):
        reserve.ended(code, seconds)
    watch = calls.of("gpud.v1.NodeService/WatchEvents", "server_stream")
    watch.ended("CANCELLED", 500.0)
    made = page(sight(None, calls=calls.called()))
    of = {"grpc_service": "gpud.v1.ReservationService", "grpc_method": "Reserve"}
    assert value(made, "grpc_server_handled_total", **of, grpc_code="OK") == 2
    assert value(made, "grpc_server_handled_total", **of, grpc_code="RESOURCE_EXHAUSTED") == 1
    assert value(made, "grpc_server_handling_seconds_count", **of) == 3
    assert value(made, "grpc_server_handling_seconds_bucket", **of, le="0.005") == 2
    assert value(made, "grpc_server_handled_total", grpc_method="WatchEvents") == 1
    # How long a stream lasted is its client's choice.
    assert value(made, "grpc_server_handling_seconds_count", grpc_method="WatchEvents") is None
    assert "GetNode" not in made


def test_a_page_after_another_tells_of_its_own_moment() -> None:
    made = NativePage(COMMIT_BOUNDS_SECONDS)
    luck = random.Random(2)
    for cards in (2, 3, 1):
        shown = snapshot([info(index) for index in range(cards)], cards, luck)
        told = made.render(sight(shown))
        assert told == page(sight(shown))
        assert value(told, "gpud_gpu_power_watts", device="gpu0") == (
            shown.samples[0].readings.power_watts
        )
