"""`gpuctl status` on one screen: what is wrong first, then the cards, the queue and what runs."""

from __future__ import annotations

import json

import pytest

from gpud.v1 import alerts_pb2 as a
from gpud.v1 import devices_pb2 as d
from gpud.v1 import instances_pb2 as i
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from gpud.v1 import telemetry_pb2 as t
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

GIB = samples.GIB
pytestmark = pytest.mark.usefixtures("terminal")


def alert(rule: str = "high_memory", index: int = 0, **changes: object) -> a.Alert:
    made = a.Alert(
        name=f"alerts/a-{rule}-{index}",
        rule=rule,
        severity=a.ALERT_SEVERITY_WARNING,
        state=a.ALERT_STATE_FIRING,
        since=samples.moment(-300),
        subject=f"devices/SIM-000{index}",
        alias=f"gpu{index}",
        summary=f"gpu{index}: memory 92 % for 5m, more than 90 %",
        remedy="release something",
    )
    made.MergeFrom(a.Alert(**changes))
    return made


def instance(index: int, **changes: object) -> i.Instance:
    made = samples.instance()
    made.name, made.endpoint = f"instances/i-{index}c0ffee", f"http://127.0.0.1:4123{index}"
    made.metrics.generated_tokens_per_second = 41.25
    made.MergeFrom(i.Instance(**changes))
    return made


def host_readings() -> t.HostReadings:
    disk = t.Disk(what="state", path="/s", total_bytes=100 * GIB, free_bytes=60 * GIB)
    return t.HostReadings(
        cpu_percent=12.4, memory_total_bytes=16 * GIB, memory_available_bytes=9 * GIB, disks=[disk]
    )


@pytest.fixture
def rig(daemon: FakeDaemon) -> list[d.Device]:
    """Eight cards beside the host, five instances, and a queue: the screen has to hold it."""
    devices = [*(samples.card(index) for index in range(8)), samples.host()]
    daemon.answers.update(
        ListDevices=d.ListDevicesResponse(devices=devices),
        ListInstances=i.ListInstancesResponse(instances=[instance(n) for n in range(5)]),
        ListReservations=r.ListReservationsResponse(
            reservations=[samples.reservation(), samples.queued(2), samples.queued(1)]
        ),
        GetSnapshot=t.GetSnapshotResponse(snapshot=t.Snapshot(host=host_readings())),
    )
    return devices


def tell(daemon: FakeDaemon, *alerts: a.Alert) -> None:
    daemon.answers["ListAlerts"] = a.ListAlertsResponse(alerts=alerts)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_full_rig_fits_a_screen(
    count: int, daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    tell(daemon, *(alert(f"rule_{index}", index) for index in range(count)))
    lines = gpuctl("status").out.splitlines()
    assert len(lines) <= 24 - 1  # and the prompt
    assert lines.count("") == min(3, 4 - count)
    assert max(map(len, lines)) <= 80
    assert sum("P106-100" in line for line in lines) == 8
    assert sum("http://127.0.0.1:4123" in line for line in lines) == 5
    assert sum(line.startswith("WARNING") for line in lines) == count


def test_disks_stand_back_where_there_is_no_room(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    host = host_readings()
    host.disks.add(what="models", path="/m", total_bytes=9999 * GIB, free_bytes=4000 * GIB)
    daemon.answers["GetSnapshot"] = t.GetSnapshotResponse(snapshot=t.Snapshot(host=host))
    assert "\ndisk: state 60G free of 100G  models 3.91T free" in gpuctl("status").out
    tell(daemon, *(alert(f"rule_{index}", index) for index in range(4)))
    lines = gpuctl("status").out.splitlines()
    assert len(lines) == 23
    assert "host: cpu 12%  ram 7/16G" in lines
    assert not any(line.startswith("disk:") for line in lines)


def test_what_is_wrong_comes_first_and_the_worst_of_it(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[3].suggested_action, rig[3].action_reason = d.SUGGESTED_ACTION_RESET, "Xid 62 on it"
    rig[4].cordoned, rig[4].cordon_reason = True, "new fan"
    rig[5].health, rig[5].health_reason = d.DEVICE_HEALTH_LOST, "the driver lost it"
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    down = instance(9, state=i.INSTANCE_STATE_BACKOFF)
    down.health.reason = "out of memory"
    daemon.answers["ListInstances"] = i.ListInstancesResponse(instances=[down])
    tell(daemon, alert(), alert("thermal", 7, severity=a.ALERT_SEVERITY_CRITICAL, summary="hot"))
    ended = gpuctl("status")
    assert ended.code == 0
    assert ended.out.splitlines()[1:7] == [
        "CRITICAL gpu7: hot",
        "CRITICAL gpu5: the driver lost it",
        "WARNING gpu0: memory 92 % for 5m, more than 90 %",
        "WARNING gpu3: reset it: Xid 62 on it",
        "WARNING i-9c0ffee: out of memory",
        "gpu4: cordoned: new fan",
    ]


def test_one_rule_of_many_cards_is_a_line_where_there_is_no_room(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    def idle(index: int) -> a.Alert:
        return alert("low_utilization", index, summary=f"gpu{index}: busy {index} %")

    tell(daemon, *(idle(index) for index in (2, 0, 1)))
    assert gpuctl("status").out.splitlines()[1:4] == [
        "WARNING gpu0: busy 0 %",
        "WARNING gpu1: busy 1 %",
        "WARNING gpu2: busy 2 %",
    ]
    tell(daemon, *(idle(index) for index in range(8)))
    every = " ".join(f"gpu{index}" for index in range(8))
    assert gpuctl("status").out.splitlines()[1:3] == [f"WARNING low_utilization (8): {every}", ""]


def test_what_is_to_be_done_about_a_card_comes_first_and_is_never_left_out(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    def grave(rule: str, index: int, words: str) -> a.Alert:
        critical = a.ALERT_SEVERITY_CRITICAL
        return alert(rule, index, severity=critical, summary=f"gpu{index}: {words}")

    reset = "reset it: Xid 48 (a double-bit error) 1 time"
    tell(
        daemon,
        *(grave("high_memory", index, "memory 99 %") for index in range(5)),
        grave("verdict", 2, "reboot the host: Xid 79 (it fell off the bus) 1 time"),
        grave("verdict", 6, reset),
        grave("verdict", 7, reset),
    )
    assert gpuctl("status").out.splitlines()[1:5] == [
        "CRITICAL gpu2: reboot the host: Xid 79 (it fell off the bus) 1 time",
        f"CRITICAL gpu6 gpu7: {reset}",
        "CRITICAL high_memory (5): gpu0 gpu1 gpu2 gpu3 gpu4",
        "",
    ]


@pytest.mark.parametrize(
    "quiet",
    [
        alert(state=a.ALERT_STATE_ACKNOWLEDGED),
        alert(state=a.ALERT_STATE_PENDING),
        alert(state=a.ALERT_STATE_RESOLVED),
        alert(severity=a.ALERT_SEVERITY_INFO),
        alert(silenced_until=samples.moment(60)),
    ],
    ids=["acknowledged", "pending", "resolved", "info", "silenced"],
)
def test_what_somebody_knows_or_is_not_sure_yet_is_not_told(
    quiet: a.Alert, daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    tell(daemon, quiet)
    assert gpuctl("status").out.splitlines()[1] == ""
    assert gpuctl("status --check").code == 0


def test_an_alert_that_says_what_the_card_says_is_told_once(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].health, rig[0].health_reason = d.DEVICE_HEALTH_LOST, "the driver lost it"
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    told = alert("lost", severity=a.ALERT_SEVERITY_CRITICAL, summary="gpu0 is lost: reboot")
    tell(daemon, told)
    assert gpuctl("status").out.splitlines()[1:3] == ["CRITICAL gpu0 is lost: reboot", ""]


def test_more_troubles_than_a_screen_takes_are_counted(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    tell(daemon, *(alert(f"rule_{index}", index) for index in range(9)))
    lines = gpuctl("status").out.splitlines()
    assert sum(line.startswith("WARNING") for line in lines) == 3
    assert "and 6 more: `gpuctl alerts`, `devices`" in lines
    assert len(lines) == 23


@pytest.mark.parametrize(("running", "told"), [(2, 7), (6, 6), (20, 6)])
def test_the_most_trouble_still_leaves_the_first_line_on_the_screen(
    running: int, told: int, daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].pressure = d.PRESSURE_HIGH
    daemon.answers.update(
        ListDevices=d.ListDevicesResponse(devices=rig),
        ListInstances=i.ListInstancesResponse(instances=[instance(n) for n in range(running)]),
    )
    tell(daemon, *(alert(f"rule_{index}", index) for index in range(told)))
    lines = gpuctl("status").out.splitlines()
    assert len(lines) == 23
    shown = sum(line.startswith("WARNING") for line in lines)
    more = [line for line in lines if line.startswith("and ")]
    assert f"and {told - shown} more: `gpuctl alerts`, `devices`" in more
    listed = sum("http://127.0.0.1:4123" in line for line in lines)
    assert (listed == running) is (len(more) == 1)
    if running == 20:
        assert more[-1] == f"and {running - listed} more: `gpuctl instances`"
    assert shown >= 1
    assert listed >= 2


def test_a_tall_screen_holds_more(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuctl.commands.status.terminal_height", lambda _: 50)
    tell(daemon, *(alert(f"rule_{index}", index) for index in range(9)))
    lines = gpuctl("status").out.splitlines()
    assert sum(line.startswith("WARNING") for line in lines) == 9
    assert lines.count("") == 3


@pytest.mark.parametrize(
    "known", [{"state": a.ALERT_STATE_ACKNOWLEDGED}, {"silenced_until": samples.moment(60)}]
)
def test_what_somebody_knows_is_not_told_in_other_words(
    known: dict[str, object], daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].health, rig[0].health_reason = d.DEVICE_HEALTH_LOST, "the driver lost it"
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    critical = a.ALERT_SEVERITY_CRITICAL
    tell(daemon, alert("lost", severity=critical, **known))
    assert gpuctl("status").out.splitlines()[1] == ""
    assert gpuctl("status --check").code == gpuctl("alerts --check").code == 0
    tell(daemon, alert("lost", severity=critical))
    assert gpuctl("status --check").code == gpuctl("alerts --check").code == 2


def test_a_driver_that_cannot_be_used_is_told_once(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    node = samples.node()
    node.warnings.append("cannot use the nvml driver: not loaded")
    daemon.answers["GetNode"] = n.GetNodeResponse(node=node)
    assert gpuctl("status").out.splitlines()[1] == f"warning: {node.warnings[0]}"
    tell(daemon, alert("driver", subject="node", alias="", summary=node.warnings[0]))
    assert gpuctl("status").out.count("cannot use") == 1


def test_a_slice_that_its_card_has_no_more_is_no_trouble(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].kind, rig[0].health = d.DEVICE_KIND_MIG, d.DEVICE_HEALTH_LOST
    rig[0].health_reason = "the driver no longer lists it"
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    assert gpuctl("status").out.splitlines()[1] == "gpu0: the driver no longer lists it"


@pytest.mark.parametrize(
    ("health", "told"),
    [
        (d.DEVICE_HEALTH_LOST, "CRITICAL gpu0: it says why"),
        (d.DEVICE_HEALTH_UNRESPONSIVE, "CRITICAL gpu0: it says why"),
        (d.DEVICE_HEALTH_UNKNOWN, "WARNING gpu0: it says why"),
    ],
)
def test_until_its_rule_is_sure_a_card_is_told_as_gravely_and_fails_no_check(
    health: int, told: str, daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].health, rig[0].health_reason = health, "it says why"
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    assert gpuctl("status").out.splitlines()[1] == told
    assert gpuctl("status --check").code == gpuctl("alerts --check").code == 0


def test_a_check_of_what_cannot_be_reached_is_unknown(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.stop()
    assert gpuctl("status --check").code == gpuctl("alerts --check").code == 3
    assert gpuctl("status --no-color").code not in (0, 3)


def test_a_card_that_refuses_its_memory_still_shows_its_heat(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[0].health = d.DEVICE_HEALTH_UNKNOWN
    rig[0].sample.ClearField("memory_used_bytes")
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    (row,) = [line for line in gpuctl("status").out.splitlines() if line.startswith("gpu0 ")]
    assert "61°C  UNKNOWN" in row


def test_tokens_are_unknown_before_the_first_reading(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    fresh = instance(0)
    fresh.ClearField("metrics")
    daemon.answers["ListInstances"] = i.ListInstancesResponse(instances=[fresh])
    (row,) = [line for line in gpuctl("status").out.splitlines() if "4123" in line]
    assert row.split()[-2:] == ["-", fresh.endpoint]


def test_bands_above_normal_are_named(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    assert "pressure" not in gpuctl("status").out
    for index, pressure in ((0, d.PRESSURE_HIGH), (3, d.PRESSURE_HIGH), (5, d.PRESSURE_CRITICAL)):
        rig[index].pressure = pressure
    rig[1].thermal, rig[2].thermal = d.THERMAL_WARNING, d.THERMAL_CRITICAL
    # Of a card in MIG mode its slices are the devices.
    for each, kind in ((rig[3], d.DEVICE_KIND_GPU), (rig[4], d.DEVICE_KIND_MIG)):
        each.mig_enabled, each.kind = True, kind
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    lines = gpuctl("status").out.splitlines()
    told = "pressure CRITICAL gpu5, HIGH gpu0 gpu3; heat CRITICAL gpu2, WARNING gpu1"
    assert told in lines
    words = {line.split()[0]: line.split()[-1] for line in lines if line.startswith("gpu")}
    assert (words["gpu0"], words["gpu1"], words["gpu2"]) == ("HEALTHY", "WARM", "HOT")
    assert (words["gpu3"], words["gpu4"]) == ("MIG", "HEALTHY")


def test_the_queue_tells_who_is_next_and_what_it_waits_for(
    rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    told = "\n3 reservations: 1 granted, 2 queued; next r-4m2k, for 6s: gpu0 has 1.25"
    assert told in gpuctl("status").out


def test_tokens_are_those_of_the_last_minute(rig: list[d.Device], gpuctl: Gpuctl) -> None:
    (header, row, *_) = [line for line in gpuctl("status").out.splitlines() if "4123" in line or
                         line.startswith("INSTANCE")]  # fmt: skip
    assert dict(zip(header.split(), row.split(), strict=True))["TOK/S"] == "41.2"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (n.NODE_STATE_READY, 0),
        (n.NODE_STATE_DRAINING, 0),  # somebody wants it so
        (n.NODE_STATE_RECONCILING, 1),
        (n.NODE_STATE_DEGRADED, 2),
    ],
)
def test_check_ends_with_how_grave_it_is(
    state: int, code: int, daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    daemon.answers["GetNode"] = n.GetNodeResponse(node=samples.node(state=state))
    ended = gpuctl("status --check")
    assert ended.code == code
    assert ("not all is well" in ended.err) == bool(code)
    tell(daemon, alert())
    assert gpuctl("status --check").code == max(1, code)
    tell(daemon, alert(severity=a.ALERT_SEVERITY_CRITICAL))
    assert gpuctl("status --check").code == 2
    assert gpuctl("status").code == 0


def test_a_cordoned_card_is_nobody_s_trouble(
    daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl
) -> None:
    rig[4].cordoned = True
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=rig)
    assert "gpu4: cordoned" in gpuctl("status").out
    assert gpuctl("status --check").code == 0


def test_json_has_the_alerts(daemon: FakeDaemon, rig: list[d.Device], gpuctl: Gpuctl) -> None:
    tell(daemon, alert())
    plain = json.loads(gpuctl("status -o json").out)
    assert [each["rule"] for each in plain["alerts"]] == ["high_memory"]
