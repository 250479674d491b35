from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import node_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


def test_events_are_told_downwards(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("events", gpuctl("events").out)
    lines = gpuctl("events", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [8, 9]


def about(subject: str, type_: str = "device.thermal", reason: str = "hot") -> node_pb2.Event:
    told = samples.event(9)
    told.subject, told.type, told.reason = subject, type_, reason
    return told


@pytest.mark.usefixtures("terminal")
def test_a_line_has_the_alias_and_fits(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    reason = "released; its bytes stay booked until the device shows them back"
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse(
        events=[about("devices/SIM-0000", reason=reason), about("devices/SIM-gone")]
    )
    header, gone, *card = gpuctl("events").out.splitlines()
    assert header.split() == ["TIME", "TYPE", "SUBJECT", "REASON"]
    assert gone.split()[3:] == ["SIM-gone", "hot"]
    assert card[0].split()[3] == "gpu0"
    assert " ".join(line[header.index("REASON") :] for line in card) == reason
    assert max(map(len, card)) <= 80
    wide = gpuctl("events -o wide").out
    assert "devices/SIM-0000" in wide
    assert reason in wide


@pytest.mark.parametrize(
    ("named", "subject"),
    [
        ("gpu0", "devices/SIM-0000"),
        ("devices/gpu0", "devices/SIM-0000"),
        ("SIM-0000", "devices/SIM-0000"),
        ("devices/SIM-gone", "devices/SIM-gone"),
        ("node", "node"),
        ("r-4m2k", "reservations/r-4m2k"),  # of an event: it need not be there any more
    ],
)
@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_a_subject_is_named_as_elsewhere(
    named: str, subject: str, form: str, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    assert gpuctl(f"events --subject {named} -o {form}").code == 0
    assert daemon.requests["ListEvents"][-1].subject == subject


def test_what_nothing_is_called_is_refused(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    ended = gpuctl("events --subject nope")
    assert ended.code == 2
    assert "'nope' names no device" in ended.err
    both = [about("models/tiny"), about("instances/tiny")]
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse(events=both)
    ended = gpuctl("events --subject tiny")
    assert ended.code == 2
    assert "write instances/tiny or models/tiny" in ended.err


@pytest.mark.parametrize(
    ("asked", "sent", "told"),
    [
        ("xid", "xid", "no event of type xid of late; there is device.xid"),
        ("nonsense", "nonsense", "of late; there is device, reservation"),
        ("device.", "device", ""),
        ("device.*", "device", ""),
        ("reservation.granted", "reservation.granted", ""),
    ],
)
def test_a_type_that_there_has_not_been_is_told_with_those_there_are(
    asked: str, sent: str, told: str, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    kept = [about("x/y", "device.xid"), about("x/y", "reservation.granted")]

    def listed(request: node_pb2.ListEventsRequest) -> node_pb2.ListEventsResponse:
        return node_pb2.ListEventsResponse(events=[] if request.type else kept)

    daemon.answers["ListEvents"] = listed
    ended = gpuctl("events", "--type", asked)
    assert (ended.code, ended.out) == (0, "")
    assert daemon.requests["ListEvents"][0].type == sent
    assert told in ended.err
    assert ended.err.endswith("no events\n")
    assert len(ended.err.splitlines()) == (2 if told else 1)


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
