from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.glance.tls import tls_lines
from gpud.v1 import devices_pb2, instances_pb2, node_pb2, reservations_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.mark.usefixtures("terminal")
def test_status(gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("status")
    assert ended.code == 0
    assert ended.err == ""
    golden("status", ended.out)


@pytest.mark.usefixtures("terminal")
def test_status_of_a_node_in_trouble(daemon: FakeDaemon, gpuctl: Gpuctl, golden: Golden) -> None:
    failed = samples.instance(instances_pb2.INSTANCE_STATE_FAILED)
    failed.failure.message = "cannot bring up instances/tiny-7f3k: the engine exited with 1" * 3
    daemon.answers.update(
        GetNode=node_pb2.GetNodeResponse(
            node=samples.node(
                state=node_pb2.NODE_STATE_DEGRADED, state_reason="the store cannot be written"
            )
        ),
        ListInstances=instances_pb2.ListInstancesResponse(instances=[failed]),
        ListReservations=reservations_pb2.ListReservationsResponse(
            reservations=[
                samples.reservation(),
                samples.reservation(),
                samples.reservation(state=reservations_pb2.RESERVATION_STATE_RELEASING),
            ]
        ),
    )
    golden("status_degraded", gpuctl("status").out)


def test_status_of_an_empty_node(daemon: FakeDaemon, gpuctl: Gpuctl, golden: Golden) -> None:
    daemon.answers.update(
        ListDevices=devices_pb2.ListDevicesResponse(),
        ListInstances=instances_pb2.ListInstancesResponse(),
        ListReservations=reservations_pb2.ListReservationsResponse(),
    )
    golden("status_empty", gpuctl("status").out)


@pytest.mark.usefixtures("terminal")
def test_status_fits_80_columns(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["ListDevices"] = devices_pb2.ListDevicesResponse(
        devices=[*(samples.card(index) for index in range(8)), samples.silent_card()]
    )
    lines = gpuctl("status").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("P106-100" in line for line in lines) == 8


@pytest.mark.parametrize("command", ["status", "status -o wide"])
@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (825 * 86400 + 5, "tls: certificate expires in 825 days"),
        (30 * 86400, "tls: certificate expires in 30 days"),
        (30 * 86400 - 1, "tls: certificate expires in 29 days: replace it"),
        (86400, "tls: certificate expires in 1 day: replace it"),
        (0, "tls: certificate expires in 0 days: replace it"),
        (-1, "tls: certificate expired 1 day ago: no client connects"),
    ],
)
def test_status_tells_how_long_the_certificate_is_good(
    command: str, seconds: int, told: str, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    assert "tls:" not in gpuctl(command).out
    _tls(daemon, certificate_expire_time=samples.moment(seconds))
    assert tls_told(gpuctl(command).out) == [told]


@pytest.mark.parametrize(
    ("authority", "certificate", "told"),
    [
        (12, 12, "tls: the client CA expires in 12 days: replace it"),
        (12, 800, "tls: the client CA expires in 12 days: replace it"),
        (3000, 800, "tls: certificate expires in 800 days"),
        (700, 800, "tls: the client CA expires in 700 days"),
        (-2, 800, "tls: the client CA expired 2 days ago: none of its clients connects"),
        (-2, -3, "tls: certificate expired 3 days ago: no client connects"),
        (90, None, "tls: the client CA expires in 90 days"),
    ],
)
def test_status_tells_what_ends_first(
    authority: int, certificate: int | None, told: str, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    ends = {"client_ca_expire_time": samples.moment(86400 * authority)}
    if certificate is not None:
        ends["certificate_expire_time"] = samples.moment(86400 * certificate)
    _tls(daemon, **ends)
    assert tls_told(gpuctl("status").out) == [told]


@pytest.mark.usefixtures("terminal")
def test_status_tells_why_the_newest_files_are_not_in_use(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    problem = "cannot use /etc/gpud/tls/server.pem: the key beside it is that of another; " * 2
    _tls(daemon, certificate_expire_time=samples.moment(86400 * 90), problem=f"{problem}\x1b[2J")
    lines = gpuctl("status").out.splitlines()
    assert lines[1] == "tls: certificate expires in 90 days"
    assert lines[2].startswith("tls: the newest files are refused: cannot use /etc/gpud/tls")
    assert max(map(len, lines)) <= 80
    until = lines.index("CRITICAL gpu1: no answer within 2 s")
    assert " ".join(each.strip() for each in lines[2:until]).endswith("is that of another;")


def test_what_has_to_be_done_about_a_certificate_is_coloured() -> None:
    def tones(**tls: object) -> list[str]:
        return [tone for _, tone in tls_lines(node_pb2.TlsStatus(**tls), float(samples.NOW), 80)]

    assert tones(certificate_expire_time=samples.moment(86400 * 90)) == [""]
    assert tones(certificate_expire_time=samples.moment(86400)) == ["yellow"]
    assert tones(certificate_expire_time=samples.moment(-1), problem="x") == ["red", "yellow"]


def tls_told(out: str) -> list[str]:
    lines = out.splitlines()
    told = [line for line in lines if line.startswith("tls:")]
    assert lines[1 : 1 + len(told)] == told
    return told


def _tls(daemon: FakeDaemon, **tls: object) -> None:
    node = samples.node(tls=node_pb2.TlsStatus(**tls))
    daemon.answers["GetNode"] = node_pb2.GetNodeResponse(node=node)


def test_status_with_options_is_the_same_status(gpuctl: Gpuctl) -> None:
    assert gpuctl("status", "--no-color").out == gpuctl("status").out


def test_status_as_json_has_the_answers_of_the_calls(gpuctl: Gpuctl) -> None:
    plain = json.loads(gpuctl("status", "-o", "json").out)
    assert list(plain) == ["node", "devices", "instances", "reservations", "alerts"]
    assert plain["node"]["state"] == "NODE_STATE_READY"


def test_status_asks_for_reservations_that_hold_or_wait(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    gpuctl("status")
    (request,) = daemon.requests["ListReservations"]
    assert list(request.states) == [1, 2, 3]


def test_a_pipe_gets_every_word(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    failed = samples.instance(instances_pb2.INSTANCE_STATE_FAILED)
    failed.failure.message = "the engine exited with 1, " * 9
    silent = samples.silent_card()
    silent.health_reason = "no answer, " * 12
    daemon.answers.update(
        ListInstances=instances_pb2.ListInstancesResponse(instances=[failed]),
        ListDevices=devices_pb2.ListDevicesResponse(devices=[silent]),
    )
    shown = gpuctl("status").out
    assert "…" not in shown
    for words in (failed.failure.message, silent.health_reason, "TITAN X (Maxwell)"):
        assert words in shown


@pytest.mark.parametrize(
    ("count", "told"),
    [(9, "9 orphans: see `gpuctl orphans`"), (1, "1 orphan: see `gpuctl orphans`"), (0, "")],
)
def test_status_tells_of_what_was_left_behind(
    count: int, told: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    assert "orphan" not in gpuctl("status").out  # no look was taken yet
    node = samples.node(orphan_count=count)
    daemon.answers["GetNode"] = node_pb2.GetNodeResponse(node=node)
    assert gpuctl("status").out.splitlines()[1] == told


def test_version_tells_both(gpuctl: Gpuctl) -> None:
    ended = gpuctl("version", "-o", "json")
    plain = json.loads(ended.out)
    assert plain["client"]["version"]
    assert plain["daemon"]["version"] == "0.1.0"
    assert plain["daemon"]["hostname"] == "rig"


def test_version_without_a_daemon_is_the_client_s(gpuctl: Gpuctl) -> None:
    ended = gpuctl("version", "--address", "/nowhere.sock")
    assert ended.code == 0
    assert ended.out.startswith("gpuctl 0.")
    assert "cannot reach gpud" in ended.out


def test_events_are_told_downwards(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("events", gpuctl("events").out)
    lines = gpuctl("events", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [8, 9]


def test_events_as_a_document_are_gpud_s_own_answer(gpuctl: Gpuctl) -> None:
    plain = json.loads(gpuctl("events", "-o", "json").out)
    assert [event["sequence"] for event in plain["events"]] == [9, 8]
    assert plain["events"][0]["details"] == {"bytes": "4294967296"}


def test_no_events(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse()
    ended = gpuctl("events")
    assert (ended.code, ended.out, ended.err) == (0, "", "no events\n")
    assert json.loads(gpuctl("events", "-o", "json").out) == {"events": []}


@pytest.mark.parametrize(
    ("since", "moment"),
    [
        ("10m", Timestamp(seconds=samples.NOW - 600)),
        ("2027-01-15T07:00:00Z", Timestamp(seconds=samples.NOW - 3600)),
    ],
)
def test_events_are_asked_for_by_type_subject_and_time(
    since: str, moment: Timestamp, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    gpuctl("events", "--type", "reservation", "--subject", "reservations/r-1", "--since", since)
    (request,) = daemon.requests["ListEvents"]
    assert request == node_pb2.ListEventsRequest(
        page_size=50, type="reservation", subject="reservations/r-1", since=moment
    )


def test_the_limit_goes_over_pages(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    def page(request: node_pb2.ListEventsRequest) -> node_pb2.ListEventsResponse:
        newest = int(request.page_token or 9)
        return node_pb2.ListEventsResponse(
            events=[samples.event(newest), samples.event(newest - 1)],
            next_page_token=str(newest - 2),
        )

    daemon.answers["ListEvents"] = page
    plain = json.loads(gpuctl("events", "--limit", "3", "-o", "json").out)
    assert [event["sequence"] for event in plain["events"]] == [9, 8, 7]


def test_following_goes_on_where_the_list_ended(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["WatchEvents"] = [
        node_pb2.WatchEventsResponse(event=samples.event(10)),
        Refusal(code=grpc.StatusCode.PERMISSION_DENIED, message="no", reason="ACCESS_WITHDRAWN"),
    ]
    ended = gpuctl("events", "-f", "-o", "jsonl")
    assert ended.code == 71
    assert [json.loads(line)["sequence"] for line in ended.out.splitlines()] == [8, 9, 10]
    (request,) = daemon.requests["WatchEvents"]
    assert request.after_sequence == 9


def test_following_an_empty_journal_takes_what_comes(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse()
    daemon.answers["WatchEvents"] = [node_pb2.WatchEventsResponse(event=samples.event(1))]
    ended = gpuctl("events", "--follow")
    assert ended.out.splitlines()[0].startswith("TIME")
    assert len(ended.out.splitlines()) == 2
    (request,) = daemon.requests["WatchEvents"]
    assert request.HasField("after_sequence")
    assert request.after_sequence == 0


def test_events_are_narrowed_by_moments_and_by_call(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    gpuctl("events --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z --request once")
    (request,) = daemon.requests["ListEvents"]
    assert request.request_id == "once"
    assert request.until.seconds - request.since.seconds == 86400


def test_until_and_follow_exclude_each_other(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    ended = gpuctl("events -f --until 1h")
    assert ended.code == 2
    assert not daemon.requests["ListEvents"]


@pytest.mark.parametrize("oldest", [1, 500])
def test_what_the_journal_let_go_of_is_said(
    daemon: FakeDaemon, gpuctl: Gpuctl, oldest: int
) -> None:
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse(
        events=[samples.event(500)], oldest_sequence=oldest, oldest_time=samples.moment(500)
    )
    ended = gpuctl("events --since 2020-01-01T00:00:00Z")
    assert ("the journal begins at" in ended.err) is (oldest > 1)


def test_wide_events_name_the_call(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    told = samples.event(9)
    told.method, told.request_id, told.caller = "ReservationService/Release", "r-1", "root"
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse(events=[told])
    assert "Release r-1 by root" in gpuctl("events -o wide").out


def test_a_watch_of_what_is_gone_ends_with_the_refusal(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["WatchEvents"] = [
        Refusal(
            code=grpc.StatusCode.OUT_OF_RANGE,
            message="cannot go on after event 9: the journal is kept from 500 on",
            reason="EVENTS_PRUNED",
        )
    ]
    ended = gpuctl("events -f")
    assert ended.code == 75
    assert "kept from 500 on" in ended.err
