"""S12: the page at /metrics, against prometheus_client rendering the same series.

Eight cards that tell everything. Ours is made from a snapshot that was not seen before: what it
takes to gather the numbers is in it. Theirs has all of them set already, and only renders.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpud.telemetry.counting import COMMIT_BOUNDS_SECONDS
from gpud.telemetry.page.native import NativePage, Sight
from tests.bench.measure import Bar, Result, Unit
from tests.telemetry.page.moment import info, sight, snapshot

CARDS = 8
PAGES = 40
S12 = Bar(must=0.15, aim=0.05)


async def measure(_folder: Path, rounds: int) -> list[Result]:
    """CPU per page, the two taking turns."""
    luck, infos = random.Random(12), [info(index) for index in range(CARDS)]
    sights = [sight(snapshot(infos, 1 + at, luck)) for at in range(PAGES)]
    ours = NativePage(COMMIT_BOUNDS_SECONDS)
    page = ours.render(sights[0])
    registry, series = _registered(page)
    _ours(ours, sights)
    _theirs(registry)
    return [
        Result(
            row="S12",
            quantity=f"/metrics of {CARDS} cards, {series} series, CPU ÷ prometheus_client",
            unit=Unit.MICROSECONDS,
            rounds=tuple(
                (
                    _each(lambda: _ours(ours, sights)),
                    _each(lambda: _theirs(registry)),
                )
                for _ in range(rounds)
            ),
            bar=S12,
            details={"page_bytes": float(len(page)), "series": float(series)},
        )
    ]


def _ours(page: NativePage, sights: list[Sight]) -> None:
    for each in sights:
        page.render(each).encode()


def _theirs(registry: CollectorRegistry) -> None:
    for _ in range(PAGES):
        generate_latest(registry)


def _each(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / PAGES


def _registered(page: str) -> tuple[CollectorRegistry, int]:
    """The same series in their registry, and how many there are."""
    registry, series = CollectorRegistry(), 0
    made: dict[tuple[str, tuple[str, ...]], Gauge] = {}
    for family in text_string_to_metric_families(page):
        for each in family.samples:
            names = tuple(sorted(each.labels))
            gauge = made.get((each.name, names))
            if gauge is None:
                gauge = Gauge(each.name, family.documentation, names, registry=registry)
                made[each.name, names] = gauge
            (gauge.labels(**each.labels) if names else gauge).set(each.value)
            series += 1
    return registry, series
