"""The alerts as one part: on a real store that a test can fill, judged by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gpud.devices.snapshot import Health
from gpud.errors import OptionInvalid, StoreReadOnly
from gpud.events import Cause, Event
from gpud.instances.life import House
from gpud.ledger.change import Change
from gpud.ledger.charge import STALE_SECONDS
from gpud.ledger.reservation import Deadline
from gpud.promises.requests import Call
from gpud.settings import Policy
from gpud.store import Committed, Entry, Row, Write
from gpud.telemetry.alerts import judge
from gpud.telemetry.alerts.alert import AlertState, Severity, Silence
from gpud.telemetry.alerts.alerts import LOOK_SECONDS, Alerts, AlertSeams, AlertTerms
from gpud.telemetry.alerts.judge import id_of
from gpud.telemetry.alerts.refusals import AlertNotFound
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.rule import Rule
from gpud.telemetry.alerts.sinks.outbox import Terms
from tests.enforcement.office import GPU, Office
from tests.telemetry.alerts.sinks.test_outbox import FakeSink, settle

LOST = id_of("lost", f"devices/{GPU}")
QUIET = 5.0
LARGE = Row(kind="thing", id="large", body=bytes(2**20))


class _House:
    """What alerts take of a house."""

    def __init__(self, office: Office) -> None:
        self.promises = office.promises
        self.clock = office.clock
        self.snapshots = office.feed
        self.policy = Policy()


class Watch:
    """Alerts over an office; `sink` is told them."""

    def __init__(self, office: Office, *rules: Rule, repeat: float = 0.0) -> None:
        self.office = office
        self.repeat = repeat
        self.sink = FakeSink("hook")
        self.alerts = Alerts(
            AlertSeams(
                house=cast(House, _House(office)),
                instances=tuple,
                engines=dict,
                certificate=lambda: None,
                store_cause=lambda: office.store.read_only_cause,
                rows=office.store.read_rows,
                node="host1",
                luck=lambda: 0.0,
            ),
            self.terms(*rules),
        )
        self.task: asyncio.Future[None] | None = None

    def terms(self, *rules: Rule) -> AlertTerms:
        return AlertTerms(
            rules=rules or tuple(BUILT_IN.values()),
            sinks=[Terms(sink=self.sink, retries=0)],
            least={"hook": Severity.WARNING},
            quiet_seconds=QUIET,
            repeat_seconds=self.repeat,
        )

    async def run(self) -> None:
        """Begin; what was kept is taken up."""
        self.task = asyncio.ensure_future(self.alerts.run())
        await asyncio.sleep(0)

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def lose(self, *, found: bool = False) -> None:
        health = Health.HEALTHY if found else Health.LOST
        self.office.change("gpu0", health=health, health_reason="" if found else "gone")

    def look(self, seconds: float = 1.0) -> None:
        self.office.clock.advance(seconds - 1.0)
        self.office.show()
        self.alerts.look()

    def states(self) -> dict[str, AlertState]:
        return {alert.id: alert.state for alert in self.alerts.list()}


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def watch(office: Office) -> AsyncIterator[Watch]:
    made = Watch(office)
    await made.run()
    yield made
    await made.end()


def call(id_: str = "") -> Call:
    return Call(method="AcknowledgeAlert", caller="anna", request_id=id_, digest=id_)


async def test_it_is_kept_and_told(watch: Watch, office: Office) -> None:
    watch.lose()
    watch.look()
    assert watch.states() == {LOST: AlertState.FIRING}
    await watch.sink.until(1)
    assert [type_ for type_, _ in await office.events("alert")] == ["alert.firing"]
    assert list(office.rows("alert")) == [LOST]
    watch.lose(found=True)
    watch.look()
    watch.look(QUIET)
    assert watch.states() == {LOST: AlertState.RESOLVED}
    await watch.sink.until(2)
    assert [type_ for type_, _ in await office.events("alert")] == [
        "alert.firing",
        "alert.resolved",
    ]
    watch.look(3600.0)
    assert watch.states() == {}
    await office.events()
    assert office.rows("alert") == {}


async def test_on_a_full_disk_it_is_told_all_the_same_and_kept_later(
    watch: Watch, office: Office
) -> None:
    office.store.full = True
    office.store.room_without_ballast = False
    with pytest.raises(StoreReadOnly):
        await office.promises.commit(Change(), (LARGE,))
    watch.lose()
    watch.look()
    assert watch.states()[LOST] is AlertState.FIRING
    assert watch.states()["store_read_only-node"] is AlertState.FIRING
    await watch.sink.until(2)
    with pytest.raises(StoreReadOnly):
        await watch.alerts.acknowledge(LOST, "anna", "", call())
    assert watch.states()[LOST] is AlertState.FIRING
    assert office.rows("alert") == {}
    office.store.full = False
    await asyncio.to_thread(office.store.recovered.wait, 60)
    watch.look()
    told = [type_ for type_, _ in await office.events("alert")]
    assert told == ["alert.firing", "alert.firing"]
    assert set(office.rows("alert")) == {LOST, "store_read_only-node"}


async def test_a_commit_that_fails_is_made_again(watch: Watch, office: Office) -> None:
    """The disk is found to be full by this very write."""
    office.store.full = True
    office.store.room_without_ballast = False
    watch.lose()
    # In one batch with what does not fit.
    large = office.promises.commit(Change(), (LARGE,))
    watch.look()
    with pytest.raises(StoreReadOnly):
        await large
    office.store.full = False
    await asyncio.to_thread(office.store.recovered.wait, 60)
    watch.look()
    assert [type_ for type_, _ in await office.events("alert.firing")] == ["alert.firing"]
    assert list(office.rows("alert")) == [LOST]


async def test_another_life_takes_it_up(watch: Watch, office: Office) -> None:
    watch.lose()
    watch.look()
    await watch.sink.until(1)
    await watch.alerts.acknowledge(LOST, "anna", "I know", call())
    silence = Silence(
        rule="lost", subject="", actor="anna", end=Deadline.after(office.clock.now(), 0)
    )
    await watch.alerts.silence(silence, 60.0, Call(method="SilenceAlerts"))
    await office.events()
    await watch.end()
    after = Watch(office)
    await after.run()
    (found,) = after.alerts.list()
    assert (found.state, found.acknowledged_by) == (AlertState.ACKNOWLEDGED, "anna")
    assert found.silenced_until_wall is not None
    after.look()
    assert after.states() == {LOST: AlertState.ACKNOWLEDGED}
    after.look(61.0)
    assert after.alerts.silences() == ()
    ended = await office.events("alert.unsilenced")
    assert ended == [("alert.unsilenced", "lost of everything: its silence is over")]
    # A rule that has left the configuration meanwhile ends what fires by it.
    await after.end()
    without = Watch(office, BUILT_IN["thermal"])
    await without.run()
    assert without.states() == {LOST: AlertState.RESOLVED}
    await without.end()


async def test_another_life_goes_on_telling_what_lasts(office: Office) -> None:
    """As often as the one before, and counted from when that did so last."""
    before, after = (Watch(office, repeat=3600.0) for _ in range(2))
    await before.run()
    before.lose()
    before.look()
    await before.sink.until(1)
    await office.events()
    before.look(1800.0)
    await before.end()
    assert before.sink.tries == 1
    await after.run()
    walls = []
    for _ in range(3):
        after.look(900.0)
        (delivery,) = after.alerts.get(LOST).deliveries
        walls.append(delivery.wall)
    first, *_ = walls
    assert walls == [first, first + 3600.0, first + 3600.0]
    await after.sink.until(1)
    await after.end()


@pytest.mark.parametrize("silenced", ["", f"devices/{GPU}"])
async def test_a_sink_that_is_back_is_told_what_it_missed(
    watch: Watch, office: Office, silenced: str
) -> None:
    watch.sink.failing(1)
    watch.lose()
    watch.look()
    await watch.sink.until(1)
    assert [type_ for type_, _ in await office.events("alert")] == [
        "alert.firing",
        "alert.undelivered",
    ]
    if silenced:
        end = Deadline.after(office.clock.now(), 0)
        asked = Silence(rule="", subject=silenced, actor="anna", end=end)
        await watch.alerts.silence(asked, 3600.0, Call(method="SilenceAlerts"))
    office.change("gpu1", health=Health.LOST, health_reason="gone")
    watch.look()
    await watch.sink.until(2 if silenced else 3)
    await settle()
    told = [each.partition("/")[0] for each in watch.sink.told]
    other = id_of("lost", f"devices/{office.samples['gpu1'].info.uuid}")
    assert told == ([other] if silenced else [other, LOST])


async def test_what_one_sink_missed_does_not_put_off_the_next_telling_to_all(
    office: Office,
) -> None:
    watch = Watch(office, repeat=3600.0)
    await watch.run()
    watch.sink.failing(1)
    watch.lose()
    watch.look()
    await watch.sink.until(1)
    (first,) = watch.alerts.get(LOST).deliveries
    office.change("gpu1", health=Health.LOST, health_reason="gone")
    watch.look(1800.0)
    await watch.sink.until(3)
    await settle()
    walls = []
    for _ in range(2):
        (delivery,) = watch.alerts.get(LOST).deliveries
        walls.append(delivery.wall - first.wall)
        watch.look(1800.0)
    assert walls == [1800.0, 3600.0]
    await watch.end()


async def test_that_there_is_room_for_no_more_is_logged_once(
    watch: Watch, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "MOST_CASES", 0)
    office.change("gpu0", health=Health.UNKNOWN, health_reason="no memory")
    with capture_logs() as logged:
        watch.look()
        watch.look(60.0)
    assert watch.states() == {}
    assert logged == [{"event": "alerts.full", "log_level": "warning", "alerts": 0, "left_out": 1}]


async def test_rows_that_make_no_sense_are_left_out(watch: Watch, office: Office) -> None:
    watch.lose()
    watch.look()
    await office.events()
    bad = (("alert", b"{}"), ("alert", b"\xff"), ("silence", b"[]"))
    rows = (Row(kind=kind, id=f"{at}", body=body) for at, (kind, body) in enumerate(bad))
    await office.promises.commit(Change(), tuple(rows))
    await watch.end()
    after = Watch(office)
    await after.run()
    assert after.states() == {LOST: AlertState.FIRING}
    assert office.promises.unreadable == ""
    await after.end()


async def test_what_cannot_be_acknowledged(watch: Watch) -> None:
    with pytest.raises(AlertNotFound):
        await watch.alerts.acknowledge("nothing", "anna", "", call())
    with pytest.raises(OptionInvalid, match="there is no rule 'nothing'"):
        watch.alerts.check_rule("nothing")
    watch.alerts.check_rule("lost")


async def test_a_mistake_costs_a_look(office: Office) -> None:
    def wrong(_: Any) -> Any:
        raise RuntimeError("a bug")

    broken = replace(BUILT_IN["lost"], what=replace(BUILT_IN["lost"].what, look=wrong))
    watch = Watch(office, broken)
    await watch.run()
    watch.office.show()
    for _ in range(5):
        await asyncio.sleep(0)
    assert watch.task is not None
    assert not watch.task.done()
    await watch.end()


async def test_it_looks_at_each_snapshot_as_long_as_it_runs(watch: Watch, office: Office) -> None:
    watch.lose()
    office.show()
    assert watch.states() == {LOST: AlertState.FIRING}
    await watch.end()
    watch.lose(found=True)
    for _ in range(int(QUIET) + 2):
        office.show()
    assert watch.states() == {LOST: AlertState.FIRING}


async def test_where_no_snapshot_comes_it_looks_by_itself(watch: Watch, office: Office) -> None:
    office.show()
    for _ in range(int(STALE_SECONDS / LOOK_SECONDS) + 2):
        office.clock.advance(LOOK_SECONDS)
        for _ in range(5):
            await asyncio.sleep(0)
    assert {alert.rule for alert in watch.alerts.list()} == {"stale"}


async def test_events_that_are_watched_for_come_from_commits(watch: Watch, office: Office) -> None:
    """Also those that a call set off."""
    details = {"pid": "7", "against": ""}
    cause = Cause(method="NodeService/X", request_id="x", caller="anna")
    trespass = Event(
        wall=0.0, type="device.trespass", subject=f"devices/{GPU}", details=details, cause=cause
    )
    others = Event(wall=0.0, type="node.started", subject="node")
    write = Write(entries=(others.entry(), trespass.entry()))
    watch.alerts.committed([Committed(write=write, sequences=(1, 2))])
    watch.look()
    assert [alert.rule for alert in watch.alerts.list()] == ["trespass"]
    broken = replace_entry(trespass, b"{")
    watch.alerts.committed([Committed(write=Write(entries=(broken,)), sequences=(3,))])


def replace_entry(event: Event, body: bytes) -> Entry:
    entry = event.entry()
    return Entry(wall=entry.wall, type=entry.type, subject=entry.subject, body=body)
