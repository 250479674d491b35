"""The fields that are kept: none that a device shows is forgotten, no number changes."""

from __future__ import annotations

import typing

import pytest

from gpud.devices.snapshot import HostReadings, Readings
from gpud.errors import OptionInvalid
from gpud.ledger.books import DeviceBook
from gpud.ledger.charge import Reserves, charge
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.history.fields import (
    BY_NAME,
    BY_NUMBER,
    DEVICE,
    ENGINE,
    HOST,
    READ,
    USUAL,
    fields_for,
    named,
)
from gpud.telemetry.history.rows import device_row, engine_row, host_row, model_rows
from gpud.v1 import devices_pb2, instances_pb2, telemetry_pb2
from tests.fakes import cards

# What a card says of itself that is no number, or that its driver only keeps for itself.
NOT_KEPT = {"compute_mode", "mig_enabled", "throttle_reasons", "recovery_action"}
NOT_KEPT |= {"memory_driver_reserved_bytes"}
HOST_NOT_KEPT = {"memory_cgroup_events", "nodes", "disks"}


def test_every_number_that_a_device_shows_is_kept() -> None:
    assert {field.name for field in READ} == set(typing.get_type_hints(Readings)) - NOT_KEPT
    shown = set(typing.get_type_hints(HostReadings)) - HOST_NOT_KEPT
    assert {field.name for field in HOST[:-2]} == shown


def test_the_names_are_those_of_the_api() -> None:
    sample, device = devices_pb2.Sample.DESCRIPTOR, devices_pb2.Device.DESCRIPTOR
    host = telemetry_pb2.HostReadings.DESCRIPTOR
    known = {f.name for each in (sample, device, host) for f in each.fields} | of_engines()
    ours = {"xid_count", "charged_bytes", "observed_bytes", "load_seconds", "restarts"}
    disks = {"state_disk_free_bytes", "models_disk_free_bytes"}
    assert set(BY_NAME) - known == ours | disks


def of_engines() -> set[str]:
    """What InstanceMetrics tells; of a Latency its two quantiles."""
    names = set()
    for field in instances_pb2.InstanceMetrics.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.name == "Latency":
            names |= {f"{field.name}_{quantile}_seconds" for quantile in ("p50", "p99")}
        else:
            names.add(field.name)
    return names


def test_every_number_that_an_engine_tells_is_kept() -> None:
    shown = of_engines() - {"time", "problem", "service"}
    assert {field.name for field in ENGINE} - {"load_seconds", "restarts"} == shown


def test_numbers_stand_in_files_and_do_not_change() -> None:
    assert len(BY_NUMBER) == len(BY_NAME) == len(DEVICE) + len(HOST) + len(ENGINE)
    # Of the first versions; a new field takes a new number.
    numbers = {"memory_used_bytes": 1, "nvlink_error_count": 30, "grantable_bytes": 50}
    numbers |= {"cpu_percent": 100, "models_disk_free_bytes": 113, "restarts": 221}
    assert {name: BY_NAME[name].number for name in numbers} == numbers


def test_rows_are_as_long_as_their_fields() -> None:
    sample = cards.sample()
    terms = charge(sample, DeviceBook(), Reserves(device_bytes=1, host_bytes=1), 0)
    assert len(device_row(sample, terms)) == len(device_row(sample, None)) == len(DEVICE)
    assert len(host_row(HostReadings())) == len(HOST)
    assert len(engine_row(reading())) == len(ENGINE)


def reading(instance: str = "i-1", **told: typing.Any) -> EngineReading:
    return EngineReading(instance=instance, model="m", boottime=1.0, wall=1.0, **told)


def test_a_model_is_its_instances_together() -> None:
    one = reading(
        running=2,
        kv_used_ratio=0.5,
        slots_full=False,
        request=Latency(p50_seconds=0.5, p99_seconds=1.0, source="engine"),
    )
    other = reading(
        "i-2",
        running=3,
        kv_used_ratio=0.7,
        slots_full=True,
        request=Latency(p50_seconds=0.4, p99_seconds=3.0, source="engine"),
    )
    row = dict(zip((f.name for f in ENGINE), model_rows([one, other])["m"], strict=True))
    assert row["requests_running"] == 5
    assert row["kv_used_percent"] == pytest.approx(60)
    assert row["slots_full"] == 1
    assert row["request_p99_seconds"] == 3.0
    assert row["requests_waiting"] is None


def test_what_is_no_reading_is_unknown() -> None:
    measured = Latency(p50_seconds=0.5, p99_seconds=1.0, source="benchmark")
    row = engine_row(reading(request=measured, error_ratio=float("nan")))
    told = dict(zip((f.name for f in ENGINE), row, strict=True))
    assert told["request_p50_seconds"] is None
    assert told["error_ratio"] is None


def test_a_misspelt_field_gets_a_suggestion() -> None:
    with pytest.raises(OptionInvalid, match="did you mean temperature_celsius"):
        named(("temprature_celsius",))
    with pytest.raises(OptionInvalid, match="did you mean memory_used_bytes"):
        named(("memory_used",))


def test_what_is_no_field_gets_those_of_what_was_asked() -> None:
    with pytest.raises(OptionInvalid) as refused:
        named(("nonsense",), ("host",))
    names = ", ".join(field.name for field in HOST)
    assert str(refused.value) == (
        f"cannot accept fields: there is no 'nonsense'; there are {names}; 'all' is every one"
    )
    with pytest.raises(OptionInvalid, match=r"are memory_used_bytes, .*decode_p99_seconds;"):
        named(("nonsense",), ("devices/GPU-1", "models/m"))
    with pytest.raises(OptionInvalid, match=r"are memory_used_bytes, .*cpu_percent"):
        named(("nonsense",))


def test_every_field_has_one_name() -> None:
    assert named(("all",)) == tuple(BY_NAME.values())
    with pytest.raises(OptionInvalid, match="name it alone"):
        named(("all", "power_watts"))


def test_usual_fields_are_those_of_each_kind() -> None:
    assert named(()) == USUAL
    assert [f.name for f in fields_for("host", USUAL)] == [
        "cpu_percent",
        "memory_available_bytes",
    ]
    assert len(fields_for("devices/GPU-1", USUAL)) == 4
    assert len(fields_for("models/m", USUAL)) == 3
