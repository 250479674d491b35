"""The alerts: judged at each snapshot, kept, told to sinks, acknowledged and silenced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gpud.access.reloading import CertificateState
from gpud.clock import Moment
from gpud.devices.snapshot import Snapshot
from gpud.errors import OptionInvalid, StoreReadOnly, WrongState
from gpud.events import Event, event_of
from gpud.instances.instance import Instance
from gpud.instances.life import House
from gpud.ledger.change import Change
from gpud.ledger.reservation import Deadline
from gpud.promises.requests import Call
from gpud.store import Committed, Row
from gpud.telemetry.alerts import notices, telling
from gpud.telemetry.alerts.alert import Alert, AlertState, Delivery, Severity, Silence
from gpud.telemetry.alerts.judge import Judge, Turn
from gpud.telemetry.alerts.keeping import Keeping, ReadRows
from gpud.telemetry.alerts.machine import acknowledged
from gpud.telemetry.alerts.notices import Notice, Telling
from gpud.telemetry.alerts.refusals import AlertNotFound
from gpud.telemetry.alerts.rules.rule import Rule, Sight
from gpud.telemetry.alerts.silences import Silences
from gpud.telemetry.alerts.sinks.outbox import Outbox
from gpud.telemetry.alerts.sinks.outbox import Terms as SinkTerms
from gpud.telemetry.engines.reading import EngineReading

log = structlog.get_logger()

# Where no snapshot comes for so long it is looked all the same: that is when something is wrong.
LOOK_SECONDS: Final = 2.0
# Where no look came for so long, gpud itself stood still, and what was in between is not known.
UNSEEN_SECONDS: Final = 3 * LOOK_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTerms:
    """The configuration, as this part takes it. `least`: severity that each sink wants."""

    rules: Sequence[Rule]
    sinks: Sequence[SinkTerms]
    least: Mapping[str, Severity]
    quiet_seconds: float
    repeat_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSeams:
    """What it sees by. `store_cause`: why the store cannot be written, "" when it can."""

    house: House
    instances: Callable[[], Sequence[Instance]]
    engines: Callable[[], Mapping[str, EngineReading]]
    certificate: Callable[[], CertificateState | None]
    store_cause: Callable[[], str]
    rows: ReadRows
    node: str
    luck: Callable[[], float]


class Alerts:
    """Owner of every alert and silence. Belongs to the loop; nothing of it blocks."""

    def __init__(self, seams: AlertSeams, terms: AlertTerms) -> None:
        self._seams = seams
        self._clock = seams.house.clock
        self._promises = seams.house.promises
        self._judge = Judge(terms.rules, terms.quiet_seconds)
        self._silences = Silences()
        self._keeping = Keeping(self._promises, lambda: not seams.store_cause(), self._newest)
        self._outbox = Outbox(self._clock, seams.node, seams.luck, self._report)
        self._telling = Telling()
        self._sent: dict[str, float] = {}  # boottime of the last notice to all, by id
        self._looked = self._watched_since = 0.0
        self._is_watching = False
        self._is_full_known = False
        self._take(terms)

    def _take(self, terms: AlertTerms) -> None:
        self._telling = Telling(
            silences=self._silences.all(),
            least=terms.least,
            repeat_seconds=terms.repeat_seconds,
        )
        self._outbox.configure(terms.sinks)

    # What the daemon drives.

    def configure(self, terms: AlertTerms) -> None:
        """Go by another configuration from now on."""
        now = self._clock.now()
        self._keep(self._judge.configure(terms.rules, terms.quiet_seconds, now), now)
        self._take(terms)

    def committed(self, commits: Sequence[Committed]) -> None:
        """Called by whoever hears of commits: some events are what rules watch for."""
        wants = self._judge.happenings.wants
        watched = (e for commit in commits for e in commit.write.entries if wants(e.type))
        try:
            for entry in watched:
                self._judge.happened(event_of(entry), self._clock.now())
        except Exception:  # whoever waits for these commits must be told of them
            log.exception("alerts.bug")

    async def run(self) -> None:
        """Watch and tell until cancelled."""
        self._restore()
        self._look_safely()
        self._is_watching = True
        self._seams.house.snapshots.heed(self._saw)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look_by_itself(), name="alerts without snapshots")
                tasks.create_task(self._outbox.run(), name="alerts' sinks")
        finally:
            self._is_watching = False

    def _restore(self) -> None:
        now = self._clock.now()
        alerts, silences = self._keeping.read(self._seams.rows)
        self._judge.restore(alerts, now)
        self._keep(self._judge.end_gone(now), now)
        self._silences.restore(silences, now)
        self._telling = replace(self._telling, silences=self._silences.all())
        for alert in alerts:
            if alert.sent is not None:
                self._sent[alert.id] = notices.last_told(alert, now)
            for each in alert.deliveries:
                if each.is_waiting:
                    self._outbox.put(
                        Notice(sink=each.sink, alert=alert, told=each.told, wall=each.wall)
                    )

    def _saw(self, _: Snapshot) -> None:
        """At once, and not by a task that follows: that is one less to wake at each snapshot."""
        if self._is_watching:
            self._look_safely()

    async def _look_by_itself(self) -> None:
        while True:
            looked = self._looked
            await self._clock.about(LOOK_SECONDS)
            if self._looked == looked:
                self._look_safely()

    def _look_safely(self) -> None:
        """A mistake here costs a look, never the daemon."""
        try:
            self.look()
        except Exception:
            log.exception("alerts.bug")

    def look(self) -> None:
        """Judge what is seen now, and tell what is to be told of it."""
        snapshot, now = self._seams.house.snapshots.latest, self._clock.now()
        if snapshot is None or not snapshot.complete:
            return
        if now.boottime - self._looked > UNSEEN_SECONDS:
            self._watched_since = now.boottime
        self._looked = now.boottime
        ledger = self._promises.ledger
        sight = Sight(
            now=now,
            snapshot=snapshot,
            charges=ledger.charges(ledger.books),
            instances=self._seams.instances(),
            engines=self._seams.engines(),
            policy=self._seams.house.policy,
            store_problem=self._promises.unreadable or self._seams.store_cause(),
            certificate=self._seams.certificate(),
            watched_since=self._watched_since,
        )
        self._keep(self._judge.look(sight), now)
        self._tell_full()
        self._end_silences(now)
        self._tell(now)
        self._keeping.flush()

    def _keep(self, turns: Iterable[Turn], now: Moment) -> None:
        for turn in turns:
            changed = turn.after or turn.before
            event = telling.turned(turn, now.wall)
            if changed is not None:
                self._keeping.note([changed.id], [event] if event is not None else [])

    def _tell_full(self) -> None:
        left_out = self._judge.left_out
        if left_out and not self._is_full_known:
            self._is_full_known = True
            log.warning("alerts.full", alerts=len(self._judge.cases), left_out=left_out)

    def _end_silences(self, now: Moment) -> None:
        ended = self._silences.expired(now)
        if not ended:
            return
        for silence in ended:
            self._silences.drop(silence)
        self._telling = replace(self._telling, silences=self._silences.all())
        if not self._seams.store_cause():
            events = tuple(telling.unsilenced(each, "gpud", now.wall) for each in ended)
            rows = tuple(Keeping.silence_row(each, gone=True) for each in ended)
            self._promises.post(Change(events=events), rows)

    def _tell(self, now: Moment) -> None:
        for key, case in list(self._judge.cases.items()):
            alert = case.alert
            if alert is None:
                continue
            told = notices.due(case, self._telling, self._sent.get(alert.id), now)
            if told is None:
                continue
            sinks = self._telling.sinks_of(alert, told, self._judge.rules.get(key[0]))
            if sinks or told is AlertState.RESOLVED:
                self._send(alert, told, sinks, now)
                self._sent[alert.id] = now.boottime
        self._sent = {id_: at for id_, at in self._sent.items() if self._newest(id_)}

    def _send(self, alert: Alert, told: AlertState, sinks: Sequence[str], now: Moment) -> None:
        alert = notices.sent(alert, told, sinks, now.wall)
        self._judge.put(alert)
        self._note([alert])
        for sink in sinks:
            self._outbox.put(Notice(sink=sink, alert=alert, told=told, wall=now.wall))

    def _offer_again(self, taken: Delivery) -> None:
        """A sink is there again: it is told what was given up there meanwhile, and still is so."""
        now = self._clock.now()
        for case in list(self._judge.cases.values()):
            alert = case.alert
            if (
                alert is not None
                and notices.is_owed(alert, taken)
                and self._telling.silenced_until(alert, now) is None
            ):
                self._send(alert, alert.state, [taken.sink], now)

    def _report(self, notice: Notice, delivery: Delivery) -> None:
        """What became of a notice."""
        alert = self._newest(notice.alert.id)
        if alert is not None:
            self._judge.put(notices.settled(alert, delivery))
        if delivery.is_waiting:
            return
        self._note([notice.alert])
        if delivery.delivered:
            self._offer_again(delivery)
        else:
            wall = self._clock.now().wall
            self._keeping.note((), [telling.undelivered(notice.alert, delivery, wall)])
        # At once: after a SIGKILL what is not known to have been told is told again.
        self._keeping.flush()

    def _note(self, alerts: Iterable[Alert]) -> None:
        self._keeping.note(alert.id for alert in alerts)

    def _newest(self, id_: str) -> Alert | None:
        case = self._judge.find(id_)
        return case.alert if case is not None else None

    # What callers ask.

    def list(self) -> tuple[Alert, ...]:
        """Every alert, what is over a while ago too; the gravest first."""
        now = self._clock.now()
        told = [
            replace(alert, silenced_until_wall=self._telling.silenced_until(alert, now))
            for alert in self._judge.told(now)
        ]
        return tuple(sorted(told, key=lambda alert: (-alert.severity, alert.id)))

    def get(self, id_: str) -> Alert:
        """One as it is told. Raises AlertNotFound."""
        for alert in self.list():
            if alert.id == id_:
                return alert
        raise AlertNotFound(name=f"alerts/{id_}")

    def silences(self) -> tuple[Silence, ...]:
        """Those that last."""
        return self._silences.all()

    def check_rule(self, name: str) -> None:
        """Raises OptionInvalid where there is no rule of that name."""
        known = {*self._judge.rules, *(alert.rule for alert in self._judge.alerts())}
        if name not in known:
            problem = f"there is no rule {name!r}; there are {', '.join(sorted(known))}"
            raise OptionInvalid(field="rule", problem=problem)

    async def acknowledge(self, id_: str, by: str, comment: str, call: Call) -> Alert:
        """Somebody knows of it; answered once durable.

        Raises AlertNotFound, WrongState, StoreReadOnly.
        """
        if self._promises.requests.find(call) is not None:
            await self._promises.requests.settled(call)
            return self.get(id_)
        self._check_writable()
        alert = self.get(id_)
        if not alert.holds:
            advice = "one that fires can be acknowledged; `gpuctl alerts` shows which do"
            raise WrongState(name=alert.name, state=alert.state.name, advice=advice)
        known = self._newest(id_)
        assert known is not None  # noqa: S101 — it has fired
        told = acknowledged(known, by, comment)

        def durable() -> None:
            now = self._newest(id_)
            if now is not None and now.holds and now.fire_wall == told.fire_wall:
                self._judge.put(acknowledged(now, by, comment))
            self._note([told])  # its numbers, or all of it, may have changed meanwhile

        event = telling.acknowledged(told, self._clock.now().wall)
        await self._commit(call, id_, event, (self._keeping.row(id_, told), durable))
        return self.get(id_)

    async def silence(self, asked: Silence, seconds: float, call: Call) -> tuple[Silence, ...]:
        """Silence, or with 0 s end that; answered once durable. `asked.end` is not looked at.

        Raises QuotaExceeded, StoreReadOnly.
        """
        if self._promises.requests.find(call) is not None:
            await self._promises.requests.settled(call)
            return self.silences()
        self._check_writable()
        now = self._clock.now()
        made = replace(asked, end=Deadline.after(now, seconds))
        known = self._silences.find(asked.rule, asked.subject)
        if seconds > 0:
            self._silences.check_room(asked.rule, asked.subject, asked.actor)
            event: Event | None = telling.silenced(made, seconds, now.wall)
        else:
            event = telling.unsilenced(known, asked.actor, now.wall) if known else None

        def durable() -> None:
            if seconds > 0:
                self._silences.put(made)
            elif known is not None:
                self._silences.drop(known)
            self._telling = replace(self._telling, silences=self._silences.all())

        row = Keeping.silence_row(made, gone=seconds <= 0)
        await self._commit(call, made.rule, event, (row, durable))
        return self.silences()

    async def _commit(
        self, call: Call, result: str, event: Event | None, change: tuple[Row, Callable[[], None]]
    ) -> None:
        row, durable = change
        rows = (row, *self._promises.remember(call, result))
        events = (event,) if event is not None else ()
        done = self._promises.commit(Change(events=events), rows, durable)
        self._promises.requests.await_commit(call, done)
        # Shielded: a client that leaves does not undo a decision on its way to the disk.
        await asyncio.shield(done)

    def _check_writable(self) -> None:
        cause = self._promises.unreadable or self._seams.store_cause()
        if cause:
            raise StoreReadOnly(cause=cause)
