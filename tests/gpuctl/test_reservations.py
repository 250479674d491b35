from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest

from gpud.v1 import devices_pb2, reservations_pb2
from gpud.v1.reservations_pb2 import (
    ListReservationsResponse,
    ReleaseRequest,
    ReleaseResponse,
    RenewResponse,
    ReserveResponse,
)
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers.update(
        Reserve=ReserveResponse(reservation=samples.reservation()),
        Renew=RenewResponse(reservation=samples.reservation()),
        Release=lambda request: ReleaseResponse(
            reservation=samples.reservation(name=request.name)
        ),
    )


def test_reserve(gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("reserve", "--vram", "4GiB")
    assert ended.code == 0
    golden("reserve", ended.out)


def test_reserve_prints_the_bare_reservation(gpuctl: Gpuctl) -> None:
    plain = json.loads(gpuctl("reserve", "--vram", "4GiB", "-o", "json").out)
    assert plain["name"] == "reservations/r-4m2k"
    assert plain["grants"][0]["bytes"] == 4 * samples.GIB


def test_reserve_for_scripts(gpuctl: Gpuctl) -> None:
    assert gpuctl("reserve", "--vram", "4GiB", "-o", "name").out == "reservations/r-4m2k\n"


def test_reserve_asks_for_what_was_said(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl(
        "reserve --vram 4GiB --device gpu0 --device gpu1 --count 2 --kind simulated --ttl 1m30s "
        "--owner batch --label team=search --label a=b=c --request-id mine --dry-run"
    )
    (request,) = daemon.requests["Reserve"]
    assert request.bytes == 4 * samples.GIB
    assert list(request.devices) == ["gpu0", "gpu1"]
    assert request.device_count == 2
    assert request.kind == devices_pb2.DEVICE_KIND_SIMULATED
    assert request.ttl.seconds == 90
    assert request.owner == "batch"
    assert dict(request.labels) == {"team": "search", "a": "b=c"}
    assert request.request_id == "mine"
    assert request.validate_only


def test_what_was_not_said_is_left_to_gpud(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("reserve", "--vram", "1G")
    (request,) = daemon.requests["Reserve"]
    assert not request.HasField("ttl")
    assert request.device_count == 0
    assert request.kind == 0
    assert not request.validate_only
    assert "@" in request.owner


def test_each_change_has_a_request_id_of_its_own(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("reserve", "--vram", "1G")
    gpuctl("reserve", "--vram", "1G")
    gpuctl("renew", "r-4m2k")
    gpuctl("release", "r-4m2k")
    asked = daemon.requests
    ids = {r.request_id for r in (*asked["Reserve"], *asked["Renew"], *asked["Release"])}
    assert len(ids) == 4
    assert all(len(given) == 36 for given in ids)


@pytest.mark.parametrize("name", ["r-4m2k", "reservations/r-4m2k"])
def test_names_with_and_without_their_collection(
    name: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    gpuctl("renew", name, "--ttl", "5m", "--generation", "3")
    (request,) = daemon.requests["Renew"]
    assert request.name == "reservations/r-4m2k"
    assert request.ttl.seconds == 300
    assert request.generation == 3


def test_without_a_generation_there_is_no_fencing(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("release", "r-4m2k")
    (request,) = daemon.requests["Release"]
    assert not request.HasField("generation")


def test_what_has_ended_runs_out_no_more(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = samples.reservation(state=reservations_pb2.RESERVATION_STATE_RELEASED)
    daemon.answers["Release"] = ReleaseResponse(reservation=ended)
    header, row = gpuctl("release r-4m2k").out.splitlines()
    assert "54s" not in row
    assert row[header.index("EXPIRES") :].split()[0] == "-"


def test_release_of_one_is_bare_and_of_several_a_list(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("release", "a", "-o", "json").out)["name"] == "reservations/a"
    several = json.loads(gpuctl("release", "a", "b", "-o", "json").out)
    assert [r["name"] for r in several["reservations"]] == ["reservations/a", "reservations/b"]


def test_one_that_cannot_be_released_keeps_none_of_the_others(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    def answer(request: ReleaseRequest) -> ReleaseResponse | Refusal:
        if request.name == "reservations/b":
            return Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                message="cannot find reservation 'reservations/b'",
                reason="RESERVATION_NOT_FOUND",
            )
        return ReleaseResponse(reservation=samples.reservation(name=request.name))

    daemon.answers["Release"] = answer
    ended = gpuctl("release", "a", "b", "c", "-o", "json")
    assert ended.code == 69
    assert "reservations/b" in ended.err
    released = json.loads(ended.out)["reservations"]
    assert [r["name"] for r in released] == ["reservations/a", "reservations/c"]


@pytest.mark.parametrize(
    ("options", "states"),
    [("", [1, 2, 3]), ("--all", []), ("--state expired --state granted", [5, 2])],
)
def test_reservations_by_state(
    options: str, states: list[int], gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    gpuctl(f"reservations {options} --owner ada@rig")
    (request,) = daemon.requests["ListReservations"]
    assert list(request.states) == states
    assert request.owner == "ada@rig"


def test_reservations(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("reservations_wide", gpuctl("reservations", "-o", "wide").out)


@pytest.mark.usefixtures("terminal")
def test_reservations_that_wait(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    ending = samples.reservation(
        name="reservations/r-9",
        preemption_notice=reservations_pb2.PreemptionNotice(by="reservations/r-1"),
        within="reservations/voice",
    )
    standing = samples.reservation(name="reservations/voice", standing=True)
    daemon.answers["ListReservations"] = ListReservationsResponse(
        reservations=[samples.queued(1), ending, standing]
    )
    narrow = gpuctl("reservations").out
    assert all(len(line) <= 80 for line in narrow.splitlines())
    golden("reservations_queued", f"{narrow}\n{gpuctl('reservations -o wide').out}")


@pytest.mark.usefixtures("terminal")
def test_a_long_owner_takes_the_place_of_the_priority(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    far = samples.reservation(owner="spiffe://gpud/coordinator", instance="instances/t-1")
    daemon.answers["ListReservations"] = ListReservationsResponse(reservations=[far])
    header, row = gpuctl("reservations").out.splitlines()
    assert (len(header) <= 80, len(row) <= 80) == (True, True)
    assert header.split() == ["RESERVATION", "STATE", "GRANTS", "EXPIRES", "OWNER", "FOR"]
    assert row.split()[-2:] == ["spiffe://gpud/coordinator", "instances/t-1"]
    assert "PRIORITY" in gpuctl("reservations -o wide").out
    # The end of an owner tells it from others, and goes last.
    far.owner = "spiffe://fleet.example/of/the/north/coordinator"
    daemon.answers["ListReservations"] = ListReservationsResponse(reservations=[far])
    header, row = gpuctl("reservations").out.splitlines()
    assert len(row) == 80
    assert row.split()[-2:] == ["…of/the/north/coordinator", "instances/t-1"]


def test_those_that_wait_come_last_and_by_their_places(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    places = {"r-b": 3, "r-c": 1, "r-d": 2}
    waiting = [samples.queued(at, name=f"reservations/{id_}") for id_, at in places.items()]
    waiting[0].ClearField("queue_position")  # not told yet
    listed = [*waiting, samples.reservation(name="reservations/r-e")]
    daemon.answers["ListReservations"] = ListReservationsResponse(reservations=listed)
    rows = gpuctl("reservations").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["r-e", "r-c", "r-d", "r-b"]
    plain = json.loads(gpuctl("reservations -o json").out)["reservations"]
    assert [each["name"] for each in plain] == [each.name for each in listed]


def test_what_ails_the_devices_of_a_promise_is_told_as_its_why(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    ailing = samples.reservation(state_reason="gpu1 is lost: Xid 79")
    ending = samples.reservation(
        state_reason="gpu1 is lost",
        preemption_notice=reservations_pb2.PreemptionNotice(by="reservations/r-1"),
    )
    daemon.answers["ListReservations"] = ListReservationsResponse(reservations=[ailing, ending])
    _, first, second = gpuctl("reservations -o wide").out.splitlines()
    assert first.endswith("gpu1 is lost: Xid 79")
    assert second.endswith("ends for reservations/r-1; gpu1 is lost")


def test_what_waits_is_shown_whole(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["GetReservation"] = reservations_pb2.GetReservationResponse(
        reservation=samples.queued(1)
    )
    golden("show_reservation_queued", gpuctl("show reservations/r-4m2k").out)


def test_no_reservations(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListReservations"] = ListReservationsResponse()
    ended = gpuctl("reservations")
    assert (ended.out, ended.err) == ("", "no reservations\n")
    assert json.loads(gpuctl("reservations", "-o", "json").out) == {"reservations": []}


def test_a_table_is_drawn_even_when_devices_cannot_be_listed(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["ListDevices"] = Refusal(code=grpc.StatusCode.INTERNAL, message="boom")
    ended = gpuctl("reserve", "--vram", "4GiB")
    assert ended.code == 0
    assert "SIM-0000:4G" in ended.out
