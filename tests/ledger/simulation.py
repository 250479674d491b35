"""The queue over days, in seconds: who waits how long under which rules.

    python -m tests.ledger.simulation [ARRIVALS]

Requests arrive at random on four 24 GiB cards, hold their bytes for a random time and leave. The
same arrivals are played under the rules as they are, and under others for comparison. Time is
simulated; the ledger is the real one.
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gpud.ledger.admission.policy import LedgerSettings, QueueSettings
from gpud.ledger.change import Change
from gpud.ledger.charge import Reserves
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Priority, ReservationState, ReserveRequest, Sharing
from gpud.units import GIB
from tests.fakes.cards import sample, snapshot
from tests.fakes.clock import FakeClock

CARDS = 4
CARD_BYTES = 24 * GIB
HOLD_SECONDS = 60.0
# Of every hundred arrivals.
SHARES = {
    Priority.BATCH: 40,
    Priority.NORMAL: 40,
    Priority.INTERACTIVE: 15,
    Priority.CRITICAL: 5,
}
SIZES_GIB = (1, 2, 4, 6, 8, 12, 16, 20)
# Small ones are many, but all sizes ask for about the same bytes in sum.
WEIGHTS = tuple(1 / size for size in SIZES_GIB)
RESERVES = Reserves(device_bytes=GIB // 2, host_bytes=0)
RULES = {
    "as they are": QueueSettings(max_queued=10**6, max_queued_per_owner=10**6),
    "no ageing": QueueSettings(max_queued=10**6, max_queued_per_owner=10**6, ageing_seconds=1e9),
    "free passing": QueueSettings(
        max_queued=10**6, max_queued_per_owner=10**6, overtaking_seconds=1e9
    ),
    "first come": QueueSettings(max_queued=10**6, max_queued_per_owner=10**6, by_priority=False),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    at: float
    hold: float
    request: ReserveRequest


@dataclass(slots=True)
class Outcome:
    """Seconds waited by class; GiB-seconds used of those there were while anybody waited."""

    waits: dict[Priority, list[float]] = field(
        default_factory=lambda: {priority: [] for priority in Priority}
    )
    used: float = 0.0
    offered: float = 0.0

    def longest(self, priority: Priority) -> float:
        return max(self.waits[priority], default=0.0)


def arrivals(count: int, load: float, seed: int) -> Iterator[Arrival]:
    """`load`: the bytes asked for, as a share of what the cards hold."""
    random_ = random.Random(seed)
    mean_bytes = GIB * random_mean()
    gap = mean_bytes * HOLD_SECONDS / (load * CARDS * (CARD_BYTES - GIB // 2))
    at = 0.0
    for _ in range(count):
        at += random_.expovariate(1 / gap)
        size = random_.choices(SIZES_GIB, WEIGHTS)[0] * GIB
        hold = random_.expovariate(1 / HOLD_SECONDS)
        request = ReserveRequest(
            owner="sim",
            bytes=size,
            sharing=Sharing.EXCLUSIVE if random_.random() < 0.02 else Sharing.SHARED,
            priority=random_.choices(list(SHARES), list(SHARES.values()))[0],
            # What an owner asks for is some more than it then needs.
            ttl_seconds=hold * random_.uniform(1.0, 3.0) + 1.0,
            max_wait_seconds=None,
        )
        yield Arrival(at, hold, request)


def random_mean() -> float:
    weighted = sum(size * weight for size, weight in zip(SIZES_GIB, WEIGHTS, strict=True))
    return weighted / sum(WEIGHTS)


class Simulation:
    def __init__(self, rules: QueueSettings, cards: int = CARDS) -> None:
        self.cards = cards
        self.clock = FakeClock()
        settings = LedgerSettings(reserves=RESERVES, release_deadline_seconds=10.0, queue=rules)
        self.ledger = Ledger(settings)
        self.ends: list[tuple[float, str]] = []
        self.holds: dict[str, float] = {}
        self.outcome = Outcome()
        self.start = self.clock.boottime

    def play(self, coming: Iterable[Arrival]) -> Outcome:
        for number, arrival in enumerate(coming):
            self.until(self.start + arrival.at)
            self.look()
            id_ = f"r{number}"
            self.holds[id_] = arrival.hold
            _, change = self.ledger.reserve(arrival.request, id_, self.clock.now())
            self.note(change)
        self.until(float("inf"))
        assert not self.ledger.books.queued, "somebody waits on empty cards"
        return self.outcome

    def until(self, moment: float) -> None:
        """Let everybody who is done by then leave, and whoever fits by that come in."""
        while self.ends and self.ends[0][0] <= moment:
            at, id_ = heapq.heappop(self.ends)
            self.move(at)
            now = self.clock.now()
            held = self.ledger.books.reservations[id_]
            if held.state is ReservationState.GRANTED:
                self.ledger.release(id_, None, now)
            self.look()
            self.note(self.ledger.serve(now))
            self.ledger.books.drop(id_)
        if moment < float("inf"):
            self.move(moment)

    def move(self, moment: float) -> None:
        seconds = moment - self.clock.boottime
        if self.ledger.books.queued:
            books = self.ledger.books.devices().values()
            self.outcome.used += seconds * sum(book.granted_bytes for book in books) / GIB
            self.outcome.offered += seconds * self.cards * (CARD_BYTES - GIB // 2) / GIB
        self.clock.advance(max(0.0, seconds))

    def look(self) -> None:
        """The cards answer, empty as they are: what is promised is not used."""
        boottime = self.clock.boottime
        seen = snapshot(*(sample(each, boottime=boottime) for each in range(self.cards)))
        self.ledger.observe(seen, self.clock.now())

    def note(self, change: Change) -> None:
        for told in change.reservations:
            if told.state is ReservationState.GRANTED and told.id in self.holds:
                waited = self.clock.boottime - told.created.boottime
                self.outcome.waits[told.request.priority].append(waited)
                heapq.heappush(self.ends, (self.clock.boottime + self.holds.pop(told.id), told.id))


def table(count: int, load: float, seed: int = 1) -> list[str]:
    """The longest and the middle wait of each class, under each rule."""
    lines = [f"{count} arrivals, load {load:g}; seconds waited, longest (99 %, middle)"]
    head = "".join(f"{priority.name.lower():>22}" for priority in Priority)
    lines.append(f"{'rules':14}{head}{'used':>7}")
    for name, rules in RULES.items():
        outcome = Simulation(rules).play(arrivals(count, load, seed))
        cells = "".join(f"{_cell(outcome.waits[priority]):>22}" for priority in Priority)
        lines.append(f"{name:14}{cells}{outcome.used / max(1.0, outcome.offered):7.0%}")
    return lines


def _cell(waits: list[float]) -> str:
    late = statistics.quantiles(waits, n=100)[98] if len(waits) > 1 else 0.0
    return f"{max(waits, default=0.0):.0f} ({late:.0f}, {statistics.median(waits):.1f})"


if __name__ == "__main__":
    arrivals_asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for load_asked in (0.6, 0.7):
        print("\n".join(table(arrivals_asked, load_asked)), end="\n\n")
