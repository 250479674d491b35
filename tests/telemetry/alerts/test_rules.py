"""Each rule that gpud brings: a sight in which it holds, and one in which it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpud.access.reloading import CertificateState
from gpud.devices.snapshot import (
    Action,
    DeviceKind,
    Disk,
    Health,
    HostReadings,
    Pressure,
    Sample,
    Thermal,
    Trouble,
    Verdict,
)
from gpud.events import Event
from gpud.instances.health.healing import GivenUp, Healing
from gpud.instances.instance import InstanceState
from gpud.telemetry.alerts.alert import Alert, AlertState, Severity
from gpud.telemetry.alerts.judge import MOST_CASES, Judge
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.rule import Happening, Rule, Sight
from gpud.telemetry.engines.reading import Latency
from tests.fakes.cards import GIB
from tests.telemetry.alerts.scenes import (
    START,
    WALL,
    card,
    charge,
    instance,
    now,
    reading,
    sight,
)

DAY = 86400.0
MIB = 2**20


def state_disk(free: int) -> HostReadings:
    disk = Disk(what="state", path="/var/lib/gpud", total_bytes=100 * GIB, free_bytes=free)
    return HostReadings(disks=(disk,))


def certificate(days: float) -> CertificateState:
    return CertificateState(
        not_after_wall=WALL + days * DAY, client_ca_not_after_wall=None, fingerprint="f"
    )


def latency(p99: float) -> Latency:
    return Latency(p50_seconds=1.0, p99_seconds=p99, source="engine")


def engine(**fields: Any) -> Sight:
    return sight(card(), engines={"i-1": reading(**fields)}, instances=[instance()])


def failing(**fields: Any) -> Sight:
    return sight(card(), instances=[instance(healing=Healing(cause="segfault", **fields))])


def verdict(action: Action, *, is_fatal: bool) -> Verdict:
    return Verdict(action=action, reason="Xid 79", is_fatal=is_fatal)


def troubled(**fields: Any) -> Sight:
    trouble = Trouble(driver="nvml", reason="not loaded", **fields)
    seen = sight(card())
    return replace(seen, snapshot=replace(seen.snapshot, troubles=(trouble,)))


HOT = card(temperature_celsius=91.0, thermal=Thermal.CRITICAL)
WARM = card(temperature_celsius=70.0, thermal=Thermal.WARNING)
LOST = card(
    health=Health.LOST, health_reason="gone", verdict=verdict(Action.REBOOT, is_fatal=False)
)
CUT_AWAY = replace(LOST, info=replace(LOST.info, kind=DeviceKind.MIG), vanished_boottime=START - 5)
HUNG = card(
    health=Health.UNRESPONSIVE, at=START - 61, verdict=verdict(Action.INSPECT, is_fatal=False)
)
C, W, NOTE = Severity.CRITICAL, Severity.WARNING, Severity.INFO

# Rule, sight, severity, what its words hold; severity None: it does not hold.
SIGHTS = [
    ("high_memory", sight(card(used=22 * GIB)), W, "gpu0: memory in use is 91.7 %, above 90 %"),
    ("high_memory", sight(card(used=21 * GIB)), None, ""),
    ("high_memory", sight(card(used=None)), None, ""),
    ("high_memory", sight(card(used=24 * GIB, health=Health.LOST)), None, ""),
    ("leaked_memory", sight(card(), charges={"U-gpu0": charge(leaked_bytes=GIB)}), W, "1 GiB"),
    ("leaked_memory", sight(card(), charges={"U-gpu0": charge()}), None, ""),
    ("disk_nearly_full", sight(host=state_disk(100 * MIB)), C, "100 MiB, below 512 MiB"),
    ("disk_nearly_full", sight(host=state_disk(GIB)), None, ""),
    ("disk_nearly_full", sight(), None, ""),
    ("host_memory", sight(host=HostReadings(memory_some_percent=25.0)), W, "25 %, above 10 %"),
    ("host_memory", sight(host=HostReadings(memory_some_percent=9.0)), None, ""),
    ("certificate_expiry", sight(certificate=certificate(10)), W, "10 days"),
    ("certificate_expiry", sight(certificate=certificate(15)), None, ""),
    ("certificate_expiry", sight(), None, ""),
    ("certificate_ends", sight(certificate=certificate(1.5)), C, "1.5 days"),
    ("certificate_ends", sight(certificate=certificate(3)), None, ""),
    ("slow_responses", engine(request=latency(2.5)), W, "2.5 s, above 2 s"),
    ("slow_responses", engine(request=latency(1.9)), None, ""),
    ("slow_responses", engine(request=latency(9.0), problem="timeout"), None, ""),
    ("slow_responses", engine(request=replace(latency(9.0), source="benchmark")), None, ""),
    ("request_errors", engine(error_ratio=0.1), W, "0.1, above 0.05"),
    ("request_errors", engine(error_ratio=0.0), None, ""),
    ("requests_wait", engine(waiting=3), NOTE, "free slot are 3"),
    ("requests_wait", engine(waiting=0), None, ""),
    ("thermal", sight(HOT), C, "gpu0: 91 °C, CRITICAL (from 85 °C on)"),
    ("thermal", sight(WARM), NOTE, "WARNING (from 65 °C on)"),
    ("thermal", sight(replace(HOT, thermal=Thermal.THROTTLING)), W, "from 80 °C"),
    ("thermal", sight(card(temperature_celsius=83.0, thermal=Thermal.CRITICAL)), C, "still"),
    ("thermal", sight(card(temperature_celsius=50.0, thermal=Thermal.NORMAL)), None, ""),
    ("thermal", sight(card(thermal=Thermal.CRITICAL)), None, ""),
    ("pressure", sight(card(used=23 * GIB, pressure=Pressure.CRITICAL)), NOTE, "95.8 %"),
    ("pressure", sight(card(used=GIB, pressure=Pressure.LOW)), None, ""),
    ("throttled", sight(card(throttle_reasons=("thermal",), sm_clock_mhz=300)), W, "300 MHz"),
    ("throttled", sight(card(throttle_reasons=("power_cap",))), None, ""),
    (
        "overcommit",
        sight(
            card(),
            charges={"U-gpu0": charge(granted_bytes=20 * GIB, foreign_bytes=6 * GIB)},
        ),
        C,
        "2 GiB of the 20 GiB that are promised are not there: others use 6 GiB",
    ),
    (
        "overcommit",
        sight(card(), charges={"U-gpu0": charge(granted_bytes=20 * GIB, foreign_bytes=4 * GIB)}),
        None,
        "",
    ),
    ("overcommit", sight(card(), charges={"U-gpu0": charge(foreign_bytes=None)}), None, ""),
    ("lost", sight(LOST), C, "gpu0: it is lost: gone"),
    ("lost", sight(card()), None, ""),
    ("lost", sight(CUT_AWAY), None, ""),
    ("lost", sight(replace(CUT_AWAY, vanished_boottime=None)), C, "it is lost"),
    ("verdict", sight(LOST), None, ""),
    ("verdict", sight(HUNG), None, ""),
    ("stale", sight(replace(HUNG, was_read=False)), C, "gpu0: no reading since gpud started; n"),
    ("stale", sight(HUNG), C, "1.02 min old"),
    ("driver", troubled(is_wanted=True), C, "cannot use the nvml driver: not loaded"),
    ("driver", troubled(), W, "cannot use the nvml driver: not loaded"),
    ("driver", troubled(device="GPU-b"), W, "devices/GPU-b: cannot be used: not loaded"),
    ("driver", sight(), None, ""),
    ("verdict", sight(card(verdict=verdict(Action.RESET, is_fatal=True))), C, "reset it once"),
    ("verdict", sight(card(verdict=verdict(Action.RESTART_APP, is_fatal=False))), W, "Xid 79"),
    ("stale", sight(card(at=START - 11)), C, "11 s old"),
    ("stale", sight(replace(LOST, boottime=START - 11)), None, ""),
    ("unknown", sight(card(health=Health.UNKNOWN, health_reason="no memory")), W, "no memory"),
    ("restart_loop", failing(in_a_row=3), C, "failed 3 times in a row: segfault"),
    ("restart_loop", failing(in_a_row=2), None, ""),
    ("restart_loop", failing(given_up=GivenUp.OOM), C, "given up (oom): segfault"),
    ("store_read_only", sight(store_problem="disk full"), C, "disk full"),
    ("store_read_only", sight(), None, ""),
]


def looked(name: str, *sights: Sight) -> Alert | None:
    """What a rule comes to, without its time."""
    judge = Judge([replace(BUILT_IN[name], for_seconds=0.0)], quiet_seconds=0.0)
    for each in sights:
        judge.look(each)
    return next(judge.alerts(), None)


@pytest.mark.parametrize(("name", "seen", "severity", "words"), SIGHTS)
def test_when_a_rule_holds(name: str, seen: Sight, severity: Severity | None, words: str) -> None:
    told = looked(name, seen)
    assert (told.severity if told else None) == severity
    if told is not None:
        assert words in told.summary
        assert told.remedy


def event(type_: str, **details: str) -> Event:
    subject = "reservations/r-1" if type_.startswith("reservation") else "devices/U-gpu0"
    return Event(wall=WALL, type=type_, subject=subject, reason="so it is", details=details)


@pytest.mark.parametrize(
    ("name", "told", "severity"),
    [
        ("trespass", event("device.trespass", pid="7", against="r-1"), W),
        ("overuse", event("reservation.overuse", device="devices/U-gpu0"), W),
        ("xid", event("device.xid", xid="79"), C),
        ("xid", event("device.xid", xid="31"), W),
        ("xid", event("device.xid", xid="63"), NOTE),
        ("xid", event("device.xid", xid="999"), W),
        ("xid", event("device.xid", xid="45"), None),
        ("footprint_drift", event("footprint.drift"), NOTE),
    ],
)
def test_events_that_are_watched_for(name: str, told: Event, severity: Severity | None) -> None:
    judge = Judge([BUILT_IN[name]], quiet_seconds=0.0)
    assert judge.happenings.wants(told.type)
    judge.happened(told, now())
    judge.look(sight(card()))
    found = next(judge.alerts(), None)
    assert (found.severity if found else None) == severity


def test_a_trespass_goes_on_until_the_last_of_them_is_over() -> None:
    judge = Judge([BUILT_IN["trespass"]], quiet_seconds=0.0)
    for pid in ("7", "8"):
        judge.happened(event("device.trespass", pid=pid, against=""), now())
    judge.look(sight(card()))
    (found,) = judge.alerts()
    assert found.summary == "gpu0: so it is (and 1 more)"
    judge.happened(event("device.trespass.ended", pid="7", against=""), now())
    judge.look(sight(card(), at=START + 1))
    assert next(judge.alerts()).state is AlertState.FIRING
    judge.happened(event("device.trespass.ended", pid="8", against=""), now())
    (turn,) = judge.look(sight(card(), at=START + 2))
    assert turn.after is not None
    assert turn.after.state is AlertState.RESOLVED


def test_an_xid_is_over_some_time_after_the_last() -> None:
    judge = Judge([BUILT_IN["xid"]], quiet_seconds=0.0)
    what = BUILT_IN["xid"].what
    assert isinstance(what, Happening)
    hold = what.hold_seconds or 0.0
    judge.happened(event("device.xid", xid="79"), now())
    judge.look(sight(card()))
    judge.happened(event("device.xid", xid="79"), now(START + 300))
    judge.look(sight(card(), at=START + hold))
    assert next(judge.alerts()).state is AlertState.FIRING
    judge.look(sight(card(), at=START + hold + 300))
    assert next(judge.alerts()).state is AlertState.RESOLVED


def test_an_xid_before_a_restart_goes_on_for_the_rest_of_its_time() -> None:
    before = Judge([BUILT_IN["xid"]], quiet_seconds=0.0)
    before.happened(event("device.xid", xid="79"), now())
    before.look(sight(card()))
    after = Judge([BUILT_IN["xid"]], quiet_seconds=0.0)
    after.restore(before.alerts(), now(START + 100))
    after.look(sight(card(), at=START + 101))
    (found,) = after.alerts()
    assert (found.state, found.summary) == (AlertState.FIRING, "gpu0: so it is")
    after.look(sight(card(), at=START + 601))
    assert next(after.alerts()).state is AlertState.RESOLVED


def test_of_many_trespassers_each_is_waited_for() -> None:
    judge = Judge([BUILT_IN["trespass"]], quiet_seconds=0.0)
    everybody = [str(pid) for pid in range(1000)]
    for pid in everybody:
        judge.happened(event("device.trespass", pid=pid, against=""), now())
    judge.look(sight(card()))
    assert next(judge.alerts()).value == 1000.0
    *others, last = everybody
    for pid in others:
        judge.happened(event("device.trespass.ended", pid=pid, against=""), now())
    judge.look(sight(card(), at=START + 1))
    (found,) = judge.alerts()
    assert (found.state, found.value) == (AlertState.FIRING, 1.0)
    judge.happened(event("device.trespass.ended", pid=last, against=""), now())
    judge.look(sight(card(), at=START + 2))
    assert next(judge.alerts()).state is AlertState.RESOLVED


def test_where_there_are_too_many_alerts_what_is_critical_has_room() -> None:
    warned = [
        Alert(id=f"a-{at}", rule="trespass", severity=W, state=AlertState.FIRING,
              subject=f"devices/U-{at}", since_wall=WALL, summary="")
        for at in range(MOST_CASES)
    ]  # fmt: skip
    judge = Judge([BUILT_IN["trespass"], BUILT_IN["lost"]], quiet_seconds=60.0)
    judge.restore(warned, now())
    judge.happened(event("device.trespass", pid="7", against=""), now())
    judge.look(sight(LOST))
    assert {each.rule for each in judge.alerts() if each.subject == "devices/U-gpu0"} == {"lost"}
    assert judge.left_out == 1
    judge.look(sight(LOST, at=START + 100))
    judge.look(sight(LOST, at=START + 4000))
    assert judge.left_out == 1
    judge.look(sight(LOST, at=START + 4001))
    assert judge.left_out == 0
    assert {each.rule for each in judge.alerts()} == {"lost", "trespass"}


XID = event("device.xid", xid="31")
RESTART = card(verdict=verdict(Action.RESTART_APP, is_fatal=False))
BOTH = (BUILT_IN["verdict"], BUILT_IN["xid"])


def firing(judge: Judge) -> list[str]:
    return [alert.rule for alert in judge.alerts() if alert.holds]


def test_an_xid_is_told_within_the_verdict_that_it_comes_to() -> None:
    judge = Judge(BOTH, quiet_seconds=0.0)
    judge.look(sight(RESTART))
    judge.happened(XID, now())
    judge.look(sight(RESTART, at=START + 1))
    assert firing(judge) == ["verdict"]
    # Once that is dealt with, so is this.
    judge.look(sight(card(), at=START + 2))
    assert firing(judge) == []
    judge.happened(XID, now(START + 3))
    judge.look(sight(card(), at=START + 3))
    assert firing(judge) == ["xid"]
    judge.look(sight(RESTART, at=START + 4))
    assert firing(judge) == ["verdict"]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([BUILT_IN["xid"]], id="nobody tells of verdicts"),
        pytest.param([replace(BOTH[0], sinks=("log",)), BOTH[1]], id="somebody else is told"),
    ],
)
def test_an_xid_is_told_where_no_verdict_tells_of_it(rules: list[Rule]) -> None:
    judge = Judge(rules, quiet_seconds=0.0)
    judge.happened(XID, now())
    judge.look(sight(RESTART))
    assert "xid" in firing(judge)


@pytest.mark.parametrize(
    ("action", "is_fatal", "words"),
    [
        (Action.RESTART_APP, False, "load it again"),
        (Action.RESET, False, "gpuctl cordon"),
        (Action.RESET, True, "gpuctl uncordon"),
    ],
)
def test_what_helps_is_told_by_what_is_to_be_done(
    action: Action, is_fatal: bool, words: str
) -> None:
    """Only what is fatal was cordoned, and is to be given out again."""
    told = looked("verdict", sight(card(verdict=verdict(action, is_fatal=is_fatal))))
    assert told is not None
    assert words in told.remedy


COLD = card(temperature_celsius=50.0, thermal=Thermal.NORMAL)
CROWDED, EMPTY = card(used=23 * GIB, pressure=Pressure.CRITICAL), card(used=0)


@pytest.mark.parametrize(
    ("name", "bad", "good", "words"),
    [
        ("thermal", HOT, COLD, "gpu0: 50 °C again, for 10 s"),
        ("pressure", CROWDED, replace(EMPTY, pressure=Pressure.LOW),
         "gpu0: memory in use: 0 % again, for 10 s"),
        ("high_memory", CROWDED, EMPTY, "gpu0: memory in use is 0 % again, for 10 s"),
        ("lost", LOST, card(), "gpu0: over; it was: it is lost: gone"),
    ],
)  # fmt: skip
def test_what_is_over_tells_how_it_is_now(
    name: str, bad: Sample, good: Sample, words: str
) -> None:
    judge = Judge([replace(BUILT_IN[name], for_seconds=0.0)], quiet_seconds=10.0)
    judge.look(sight(bad))
    for at in (1, 11):
        judge.look(sight(replace(good, boottime=START + at), at=START + at))
    (found,) = judge.alerts()
    assert (found.state, found.summary) == (AlertState.RESOLVED, words)


def test_who_is_named_already_is_not_named_again() -> None:
    judge = Judge([BUILT_IN["overuse"]], quiet_seconds=0.0)
    words = "reservations/r-1 holds 5 GiB of gpu0"
    told = Event(wall=WALL, type="reservation.overuse", subject="reservations/r-1", reason=words)
    judge.happened(told, now())
    judge.look(sight(card()))
    assert next(judge.alerts()).summary == words


def test_that_a_count_is_above_0_goes_without_saying() -> None:
    told = looked("leaked_memory", sight(card(), charges={"U-gpu0": charge(leaked_bytes=GIB)}))
    assert told is not None
    assert told.summary == "gpu0: of owners that are gone it still holds 1 GiB"


def test_a_rule_that_is_gone_ends_what_fires_by_it() -> None:
    judge = Judge([BUILT_IN["lost"]], quiet_seconds=60.0)
    judge.look(sight(LOST))
    (turn,) = judge.configure([], 60.0, now(START + 1))
    assert turn.after is not None
    assert turn.after.state is AlertState.RESOLVED


def test_a_stopped_instance_is_no_restart_loop() -> None:
    stopped = instance(state=InstanceState.STOPPED, healing=Healing(in_a_row=9))
    assert looked("restart_loop", sight(instances=[stopped])) is None


def test_an_idle_engine_has_no_latency_to_tell() -> None:
    """It was slow, and nobody asks it any more: that is over after a while."""
    judge = Judge([replace(BUILT_IN["slow_responses"], for_seconds=0.0)], quiet_seconds=10.0)
    judge.look(engine(request=latency(5.0)))
    for at in range(1, 62):
        idle = sight(card(), at=START + at, engines={"i-1": reading(requests_per_second=0.0)})
        judge.look(idle)
    assert next(judge.alerts()).state is AlertState.RESOLVED


def test_an_engine_that_does_not_answer_is_neither_slow_nor_well_again() -> None:
    judge = Judge([replace(BUILT_IN["slow_responses"], for_seconds=0.0)], quiet_seconds=10.0)
    judge.look(engine(request=latency(5.0)))
    for at in range(1, 300):
        silent = reading(at=START, request=latency(1.0), problem="no answer")
        judge.look(sight(card(), at=START + at, engines={"i-1": silent}))
    assert next(judge.alerts()).state is AlertState.FIRING
