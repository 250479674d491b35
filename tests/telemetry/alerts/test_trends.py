"""What one moment does not tell: use while it serves, and throughput against its own past."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpud.engines.counting.counters import Counters
from gpud.instances.instance import InstanceState, Sleep
from gpud.telemetry.alerts.rules.levels import DROP, LOW_USE
from gpud.telemetry.alerts.rules.trends import KNOWN_SECONDS, USE_SECONDS, Trends
from gpud.telemetry.engines import reckoning
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.engines.series import WINDOW_SECONDS, Point, Points, added
from tests.telemetry.alerts.scenes import START, WALL, card, instance, reading, sight

DEVICE, INSTANCE = "devices/U-gpu0", "instances/i-1"


def used(trends: Trends, seconds: int, percent: float, **fields) -> float | None:
    """The mean after so long; fields of the engine that is on the device."""
    found = None
    begin = START + getattr(trends, "at", 0)
    for second in range(seconds):
        at = begin + second
        engine = reading(at=at, **{"running": 1} | fields)
        seen = sight(
            card(at=at, utilization_percent=percent),
            at=at,
            instances=[instance()],
            engines={"i-1": engine},
        )
        found = trends.see(seen)[LOW_USE].get(DEVICE)
    return found


def test_use_is_told_once_it_has_served_for_a_while() -> None:
    assert used(Trends(), int(USE_SECONDS), 20.0) is None
    assert used(Trends(), int(USE_SECONDS) + 2, 20.0) == pytest.approx(20.0)


@pytest.mark.parametrize(
    "idle",
    [
        {"running": 0, "requests_per_second": 0.0, "generated_tokens_per_second": 0.0},
        {"running": None},
        {"running": 1, "sleeping": True},
        {"running": 1, "problem": "no answer"},
    ],
)
def test_a_device_that_nobody_asks_anything_is_not_badly_used(idle) -> None:
    assert used(Trends(), 200, 3.0, **idle) is None


def test_nor_one_whose_instances_are_not_there_to_serve() -> None:
    trends = Trends()
    for at in range(200):
        loading = instance(state=InstanceState.LOADING)
        asleep = instance("i-2", sleep=Sleep(level=1, wall=WALL))
        seen = sight(
            card(at=START + at, utilization_percent=3.0),
            at=START + at,
            instances=[loading, asleep],
            engines={id_: reading(id_, at=START + at, running=1) for id_ in ("i-1", "i-2")},
        )
        assert trends.see(seen)[LOW_USE] == {}


def test_a_refused_utilization_is_unknown() -> None:
    trends = Trends()
    seen = sight(card(), instances=[instance()], engines={"i-1": reading(running=1)})
    assert DEVICE not in trends.see(seen)[LOW_USE]


class Engine:
    """One engine's readings, one each 5 s."""

    def __init__(self) -> None:
        self.trends, self.at = Trends(), START

    def run(self, seconds: float, read: Callable[[float], EngineReading]) -> float | None:
        found = None
        for _ in range(int(seconds / 5)):
            self.at += 5
            seen = sight(at=self.at, engines={"i-1": read(self.at)})
            found = self.trends.see(seen)[DROP].get(INSTANCE)
        return found


def busy(tokens: float, running: int = 4) -> Callable[[float], EngineReading]:
    return lambda at: reading(at=at, running=running, generated_tokens_per_second=tokens)


def idle(at: float) -> EngineReading:
    return reading(at=at, running=0, generated_tokens_per_second=0.0)


LONG = WINDOW_SECONDS + KNOWN_SECONDS + 60


def test_a_fall_under_the_same_load_is_told() -> None:
    engine = Engine()
    assert engine.run(LONG, busy(100)) == pytest.approx(0.0)
    assert engine.run(5, busy(70)) == pytest.approx(30.0, abs=1.0)


@pytest.mark.parametrize("before", [[], [50]])
def test_a_stall_is_a_fall_by_all_of_it(before: list[float]) -> None:
    """Also of an engine that tells no requests, and for as long as it lasts."""
    engine = Engine()
    engine.run(LONG, busy(100))
    for tokens in before:
        assert engine.run(120, busy(tokens)) == pytest.approx(45, abs=5)
    assert engine.run(5, busy(0)) == pytest.approx(100)
    assert engine.run(4 * 3600, busy(0)) == pytest.approx(100)
    assert engine.run(5, idle) is None


def test_what_never_gave_anything_does_not_fall() -> None:
    engine = Engine()
    assert engine.run(2 * LONG, busy(0)) is None


def test_fewer_requests_are_no_fall() -> None:
    engine = Engine()
    engine.run(LONG, busy(100, running=8))
    assert engine.run(300, busy(20, running=1)) is None  # not known at this load yet
    assert engine.run(300, idle) is None


def wavy(tokens: float, *running: int) -> Callable[[float], EngineReading]:
    """Requests come and go, from one reading to the next."""
    return lambda at: busy(tokens, running[int(at / 5) % len(running)])(at)


def test_a_slow_engine_has_more_requests_and_is_compared_with_itself_at_fewer() -> None:
    """Traffic as it is: the number of requests is never the same for long."""
    engine = Engine()
    assert engine.run(LONG, wavy(300, 2, 5, 3, 6, 0, 4)) is None  # it had none in each minute
    assert engine.run(120, wavy(200, 8, 7, 8)) == pytest.approx(33, abs=5)


def test_within_a_minute_the_fewest_requests_count() -> None:
    """With fewer than were ever known, less may be given."""
    engine = Engine()
    engine.run(LONG, wavy(300, 4, 5, 6))
    assert engine.run(120, wavy(100, 5, 9, 9)) is None
    assert engine.run(120, wavy(100, 6, 9, 9)) == pytest.approx(66, abs=5)


def test_a_fall_that_stays_is_usual_at_fewer_requests_too() -> None:
    engine = Engine()
    engine.run(LONG, busy(100, running=2))
    engine.run(4 * 3600, busy(50, running=8))
    assert engine.run(120, busy(50, running=2)) == pytest.approx(0, abs=5)


def test_after_a_pause_a_minute_of_work_is_waited_for() -> None:
    """The rate of the last minute is low while a part of that minute was idle."""
    engine = Engine()
    engine.run(LONG, busy(100))
    engine.run(600, idle)
    assert engine.run(WINDOW_SECONDS, busy(30)) is None
    assert engine.run(10, busy(100)) == pytest.approx(0.0, abs=1.0)


def test_it_is_compared_with_what_was_lately_usual() -> None:
    """A fall that lasts for hours becomes what is usual."""
    engine = Engine()
    engine.run(LONG, busy(100))
    first = engine.run(60, busy(70))
    later = engine.run(4 * 3600, busy(70))
    assert first is not None
    assert later is not None
    assert first > 25 > 5 > later


def test_an_engine_that_does_not_answer_is_unknown_where_something_was_told() -> None:
    engine = Engine()
    engine.run(LONG, busy(100))
    silent = reading(problem="no answer")
    seen = sight(at=engine.at + 5, engines={"i-1": silent})
    assert engine.trends.see(seen)[DROP] == {INSTANCE: None}
    gone = sight(at=engine.at + 10)
    assert engine.trends.see(gone)[DROP] == {}


def test_what_gives_no_tokens_is_compared_by_its_requests() -> None:
    engine = Engine()

    def embeds(rate: float) -> Callable[[float], EngineReading]:
        return lambda at: reading(
            at=at, running=2, generated_tokens_per_second=0.0, requests_per_second=rate
        )

    engine.run(LONG, embeds(50))
    assert engine.run(5, embeds(30)) == pytest.approx(40.0, abs=2.0)
    # By those alone: tokens are another measure.
    assert engine.run(5, busy(10, running=2)) is None


def counting(counted: Callable[[int], Counters]) -> Callable[[float], EngineReading]:
    """What is told of an engine that has counted so much after so many seconds."""
    points: Points = ()

    def read(at: float) -> EngineReading:
        nonlocal points
        points = added(points, Point(boottime=at, counters=counted(int(at - START))), 5.0)
        return reckoning.reading(points, reckoning.Known(instance=instance()), WALL)

    return read


REQUEST_SECONDS = 150


def by_request(second: int, steps: float | None = None) -> Counters:
    """20 tokens/s, one request after the other, all of its tokens counted at its end."""
    ended = second // REQUEST_SECONDS * REQUEST_SECONDS
    return Counters(running=1, generated_tokens=10 + 20 * ended, steps=steps)


@pytest.mark.parametrize("tells_steps", [True, False])
def test_tokens_that_are_counted_when_a_request_ends_do_not_fall_before(
    tells_steps: bool,
) -> None:
    """As of a llama-server with drafts, and of a command."""
    engine = Engine()
    read = counting(lambda n: by_request(n, 8 * n if tells_steps else None))
    assert {engine.run(5, read) for _ in range(720)} <= {None, 0.0}


def test_of_those_it_is_a_stall_once_no_step_is_made() -> None:
    engine, stop = Engine(), 20 * REQUEST_SECONDS
    read = counting(lambda n: by_request(min(n, stop), 8 * min(n, stop)))
    assert engine.run(stop, read) is None
    assert engine.run(2 * WINDOW_SECONDS, read) == pytest.approx(100)


def test_tokens_that_are_counted_as_they_are_given_fall_at_once() -> None:
    stop = 1800

    def given(second: int) -> Counters:
        tokens = 20 * min(second, stop)
        return Counters(running=1, generated_tokens=10, given_tokens=tokens, steps=8 * second)

    def slower(second: int) -> Counters:
        return Counters(running=1, generated_tokens=20 * second - 8 * max(0, second - stop))

    for counted, percent in ((given, 100), (slower, 40)):
        engine, read = Engine(), counting(counted)
        assert engine.run(stop, read) == pytest.approx(0.0)
        assert engine.run(WINDOW_SECONDS, read) == pytest.approx(percent, abs=2)


def test_engines_that_are_gone_leave_nothing_behind() -> None:
    trends = Trends()
    assert used(trends, 1, 20.0) is None
    assert trends.goes_on
    trends.see(sight(card(at=START + 1, utilization_percent=20.0), at=START + 1))
    assert not trends.goes_on
