"""From what requests showed to what is told of them all."""

from __future__ import annotations

import pytest

from gpud.benchmarking.benchmark import Errors, Percentiles
from gpud.benchmarking.statistics import Tally, Timing, nearest_rank, percentiles


@pytest.mark.parametrize(
    ("values", "percent", "rank"),
    [
        # The textbook's table of nearest rank.
        ((15, 20, 35, 40, 50), 5, 15),
        ((15, 20, 35, 40, 50), 30, 20),
        ((15, 20, 35, 40, 50), 40, 20),
        ((15, 20, 35, 40, 50), 50, 35),
        ((15, 20, 35, 40, 50), 100, 50),
        ((3, 6, 7, 8, 8, 10, 13, 15, 16, 20), 25, 7),
        ((3, 6, 7, 8, 8, 10, 13, 15, 16, 20), 50, 8),
        ((3, 6, 7, 8, 8, 10, 13, 15, 16, 20), 75, 15),
        ((7,), 1, 7),
        ((7,), 99, 7),
        (tuple(range(1, 101)), 99, 99),
        (tuple(range(1, 102)), 99, 100),
    ],
)
def test_nearest_rank(values: tuple[float, ...], percent: float, rank: float) -> None:
    assert nearest_rank(values, percent) == rank


def test_percentiles_take_any_order_and_no_values() -> None:
    assert percentiles([3, 1, 2]) == Percentiles(p50=2, p90=3, p99=3)
    assert percentiles([]) is None


def timing(sent: float, **more: object) -> Timing:
    told: dict[str, object] = {
        "sent": sent,
        "first": sent + 0.5,
        "last": sent + 1.5,
        "ended": sent + 1.6,
        "gaps": (0.25, 0.75),
        "prompt_tokens": 100,
        "output_tokens": 3,
    }
    return Timing(**(told | more))  # type: ignore[arg-type]


def test_a_level_is_what_its_requests_come_to() -> None:
    tally = Tally(concurrency=2, requests=4)
    tally.add(timing(0))
    tally.add(timing(1, first=2.0, last=3.0))
    tally.fail("HTTP 500", "out of cheese")
    tally.fail("HTTP 500", "again")
    assert tally.ended == 4
    level = tally.level(4.0)
    assert (level.requests, level.completed, level.error_ratio) == (4, 2, 0.5)
    assert level.errors == (Errors(kind="HTTP 500", count=2, detail="out of cheese"),)
    assert (level.prompt_tokens, level.output_tokens) == (200, 6)
    assert level.time_to_first_token == Percentiles(p50=0.5, p90=1.0, p99=1.0)
    assert level.inter_token == Percentiles(p50=0.25, p90=0.75, p99=0.75)
    assert level.request_latency == Percentiles(p50=1.6, p90=1.6, p99=1.6)
    assert level.tokens_per_second == 1.5
    assert level.request_tokens_per_second == 2.0  # two more after the first, in a second
    assert level.prompt_tokens_per_second == 50.0
    assert level.prefill_tokens_per_second == 100.0  # the smaller of 200 and 100
    assert level.requests_per_second == 0.5


def test_what_nobody_counted_is_unknown() -> None:
    tally = Tally(concurrency=1, requests=2)
    tally.add(timing(0))
    tally.add(timing(0, first=None, last=None, gaps=(), prompt_tokens=None, output_tokens=None))
    level = tally.level(1.0)
    assert (level.prompt_tokens, level.output_tokens, level.tokens_per_second) == (None,) * 3
    assert level.prompt_tokens_per_second is None
    assert level.time_to_first_token == Percentiles(p50=0.5, p90=0.5, p99=0.5)


def test_a_level_in_which_nothing_ended() -> None:
    level = Tally(concurrency=1).level(0.0)
    assert (level.requests, level.error_ratio, level.requests_per_second) == (0, 0.0, 0.0)
    assert (level.request_latency, level.tokens_per_second) == (None, None)


@pytest.mark.parametrize("tokens", [0, 1, None])
def test_one_token_has_no_speed(tokens: int | None) -> None:
    assert timing(0, output_tokens=tokens).tokens_per_second is None
    assert timing(0, last=0.5).tokens_per_second is None  # all in one piece
