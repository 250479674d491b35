"""Notices on their way: the gravest first, tried again, bounded, and told of when given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gpud.settings import AlertSink
from gpud.telemetry.alerts.alert import AlertState, Delivery, Severity
from gpud.telemetry.alerts.notices import Notice
from gpud.telemetry.alerts.sinks.outbox import MOST_WAITING, Outbox, Terms
from gpud.telemetry.alerts.sinks.sink import (
    JITTER,
    LONGEST_PAUSE_SECONDS,
    SinkFailed,
    pause_seconds,
)
from tests.fakes.clock import FakeClock
from tests.telemetry.alerts.scenes import WALL, alert

PATIENCE_SECONDS = 60.0


class FakeSink:
    """Fails as often as it is told to; `told` has the ids of what it took."""

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.fails: list[SinkFailed | Exception] = []
        self.told: list[str] = []
        self.tries = 0
        self.changed = asyncio.Event()
        self.gate: asyncio.Event | None = None

    def failing(self, times: int, *, is_final: bool = False) -> None:
        self.fails += [
            SinkFailed(sink=self.name, problem="no", is_final=is_final) for _ in range(times)
        ]

    async def send(self, body: dict[str, Any]) -> None:
        self.tries += 1
        self.changed.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.told.append(body["id"])

    async def until(self, tries: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.tries < tries:
                self.changed.clear()
                await self.changed.wait()


class Desk:
    """An outbox with its reports."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.reports: list[Delivery] = []
        self.settled = asyncio.Event()
        self.outbox = Outbox(self.clock, "host1", lambda: 0.0, self.report)

    def report(self, _: Notice, delivery: Delivery) -> None:
        self.reports.append(delivery)
        if not delivery.is_waiting:
            self.settled.set()

    async def until_settled(self, count: int) -> list[Delivery]:
        def found() -> list[Delivery]:
            return [each for each in self.reports if not each.is_waiting]

        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found()) < count:
                self.settled.clear()
                await self.settled.wait()
        return found()

    async def let_time_pass(self, sink: FakeSink, tries: int) -> None:
        """Pause by pause, until it was tried so often."""
        while sink.tries < tries:
            before = sink.tries
            await settle()
            if sink.tries == before:
                self.clock.advance(LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def running(*sinks: FakeSink, retries: int = 3) -> AsyncIterator[Desk]:
    desk = Desk()
    desk.outbox.configure([Terms(sink=sink, retries=retries) for sink in sinks])
    task = asyncio.ensure_future(desk.outbox.run())
    try:
        yield desk
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def settle() -> None:
    """Let everybody go as far as they can without time."""
    for _ in range(20):
        await asyncio.sleep(0)


def notice(number: int, sink: str = "a") -> Notice:
    return Notice(sink=sink, alert=alert(), told=AlertState.FIRING, wall=WALL + number)


def of(id_: str, severity: Severity = Severity.WARNING, told=AlertState.FIRING) -> Notice:
    return Notice(sink="a", alert=alert(id=id_, severity=severity), told=told, wall=WALL)


def at(told: str) -> str:
    """A FakeSink's word without its time."""
    return told.rpartition("/")[0]


def ids(*numbers: int) -> list[str]:
    return [f"hungry-1/firing/{WALL + number:.3f}" for number in numbers]


async def test_each_is_told_once_in_its_order() -> None:
    sink = FakeSink()
    async with running(sink) as desk:
        for number in range(5):
            desk.outbox.put(notice(number))
        told = await desk.until_settled(5)
    assert sink.told == ids(*range(5))
    assert all(each.delivered and each.attempts == 1 for each in told)


async def test_what_fails_is_tried_again_and_what_follows_waits() -> None:
    sink = FakeSink()
    sink.failing(2)
    async with running(sink) as desk:
        desk.outbox.put(notice(1))
        desk.outbox.put(notice(2))
        await desk.let_time_pass(sink, 4)
        told = await desk.until_settled(2)
    assert sink.told == ids(1, 2)
    assert [each.attempts for each in told] == [3, 1]
    waiting = [each for each in desk.reports if each.is_waiting]
    assert [(each.attempts, each.problem) for each in waiting] == [(1, "no"), (2, "no")]


async def test_the_pause_doubles_up_to_the_longest() -> None:
    assert [pause_seconds(n, 0.0) for n in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 256.0]
    assert pause_seconds(1000, 0.0) == LONGEST_PAUSE_SECONDS
    assert pause_seconds(3, 1.0) == 4.0 * (1 - JITTER)


async def test_by_itself_it_is_tried_for_some_twenty_minutes() -> None:
    pauses = [pause_seconds(n + 1, 0.5) for n in range(AlertSink().retries)]
    assert 18 * 60 < sum(pauses) < 22 * 60


async def test_no_try_comes_before_its_pause_is_over() -> None:
    sink = FakeSink()
    sink.failing(1)
    async with running(sink) as desk:
        desk.outbox.put(notice(1))
        await sink.until(1)
        await settle()
        desk.clock.advance(0.9)
        await settle()
        assert sink.tries == 1
        desk.clock.advance(0.2)
        await desk.until_settled(1)
    assert sink.told == ids(1)


async def test_after_all_tries_it_is_given_up_and_told() -> None:
    sink = FakeSink()
    sink.failing(4)
    async with running(sink, retries=3) as desk:
        desk.outbox.put(notice(1))
        desk.outbox.put(notice(2))
        await desk.let_time_pass(sink, 5)
        first, second = await desk.until_settled(2)
    assert (first.delivered, first.attempts, first.problem) == (False, 4, "no")
    assert second.delivered
    assert sink.told == ids(2)


async def test_what_can_never_be_taken_is_not_tried_again() -> None:
    sink = FakeSink()
    sink.failing(1, is_final=True)
    async with running(sink) as desk:
        desk.outbox.put(notice(1))
        (told,) = await desk.until_settled(1)
    assert (told.delivered, told.attempts) == (False, 1)


async def test_a_sink_that_hangs_keeps_no_other_waiting() -> None:
    slow, quick = FakeSink("slow"), FakeSink("quick")
    slow.gate = asyncio.Event()
    async with running(slow, quick) as desk:
        desk.outbox.put(notice(1, "slow"))
        desk.outbox.put(notice(2, "quick"))
        (told,) = await desk.until_settled(1)
    assert told.sink == "quick"


async def test_what_is_graver_goes_first_also_while_the_sink_is_left_alone() -> None:
    """No time passes here. Once the sink takes one, the others need not wait either."""
    sink = FakeSink()
    sink.failing(1)
    async with running(sink) as desk:
        desk.outbox.put(of("warned"))
        await sink.until(1)
        await settle()
        desk.outbox.put(of("note", Severity.INFO))
        await settle()
        assert sink.tries == 1
        desk.outbox.put(of("lost", Severity.CRITICAL))
        await desk.until_settled(3)
    assert [at(each) for each in sink.told] == ["lost/firing", "warned/firing", "note/firing"]


async def test_among_equals_who_was_tried_least_goes_first() -> None:
    """And no alert is over before it was told that it fires."""
    sink = FakeSink()
    sink.gate = asyncio.Event()
    sink.failing(3)
    async with running(sink) as desk:
        desk.outbox.put(of("first"))
        await sink.until(1)
        for each in (
            of("first", told=AlertState.RESOLVED),
            of("second"),
            of("note", Severity.INFO),
            of("lost", Severity.CRITICAL),
        ):
            desk.outbox.put(each)
        sink.gate.set()
        await desk.let_time_pass(sink, 8)
        await desk.until_settled(5)
    waiting = [each.attempts for each in desk.reports if each.is_waiting]
    assert waiting == [1, 1, 2]  # of the first, and of what is lost
    assert [at(each) for each in sink.told] == [
        "lost/firing", "second/firing", "first/firing", "first/resolved", "note/firing",
    ]  # fmt: skip


async def test_of_too_many_the_least_grave_is_dropped() -> None:
    sink = FakeSink()
    sink.gate = asyncio.Event()
    async with running(sink) as desk:
        desk.outbox.put(of("tried", Severity.INFO))
        await sink.until(1)
        for number in range(MOST_WAITING - 1):
            desk.outbox.put(of(f"lost {number}", Severity.CRITICAL))
        desk.outbox.put(replace(of("warned"), wall=WALL + 1))
    assert [each.wall for each in desk.reports] == [WALL + 1]


async def test_of_too_many_the_oldest_are_dropped_and_told() -> None:
    sink = FakeSink()
    sink.gate = asyncio.Event()
    async with running(sink) as desk:
        desk.outbox.put(notice(0))
        await sink.until(1)
        for number in range(1, MOST_WAITING + 2):
            desk.outbox.put(notice(number))
        dropped = [each for each in desk.reports if not each.is_waiting]
        assert [each.wall for each in dropped] == [WALL + 1, WALL + 2]
        assert "more than 256 waited" in dropped[0].problem
        sink.gate.set()
        await desk.until_settled(MOST_WAITING + 2)
    assert sink.told == ids(0, *range(3, MOST_WAITING + 2))


async def test_another_configuration_keeps_what_waits() -> None:
    """The try under way is begun anew, by the new terms."""
    old, new, gone = FakeSink("a"), FakeSink("a"), FakeSink("b")
    old.gate, gone.gate = asyncio.Event(), asyncio.Event()
    async with running(old, gone) as desk:
        desk.outbox.put(notice(1, "a"))
        desk.outbox.put(notice(2, "b"))
        await old.until(1)
        desk.outbox.configure([Terms(sink=new, retries=0)])
        told = await desk.until_settled(2)
        desk.outbox.put(notice(3, "b"))
    assert new.told == ids(1)
    dropped = next(each for each in told if each.sink == "b")
    assert dropped.problem == "the sink has left the configuration"


async def test_a_mistake_of_ours_costs_one_notice() -> None:
    sink = FakeSink()
    sink.fails = [RuntimeError("a bug")]
    async with running(sink) as desk:
        desk.outbox.put(notice(1))
        desk.outbox.put(notice(2))
        first, second = await desk.until_settled(2)
    assert "internal error" in first.problem
    assert second.delivered
