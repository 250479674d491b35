from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gpuctl.glance.tls import tls_lines
from gpud.v1 import devices_pb2, instances_pb2, node_pb2, reservations_pb2
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]

WORST = "CRITICAL gpu1: no answer within 2 s"


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
    until = lines.index(WORST)
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
    [(9, "9 orphans: see `gpuctl orphans`"), (1, "1 orphan: see `gpuctl orphans`"), (0, WORST)],
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
