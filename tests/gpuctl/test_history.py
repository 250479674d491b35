from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest

from gpuctl.plotting.braille import plot
from gpuctl.plotting.grid import cells, filled
from gpuctl.plotting.sparkline import sparkline
from gpuctl.plotting.values import value_text
from gpud.v1 import history_pb2 as h
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import past
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.samples import GIB, NOW

Golden = Callable[[str, str], None]


def test_history(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["QueryHistory"] = past.history()
    ended = gpuctl("history gpu0 gpu1 --field power_watts --window 1h --step 1m")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    golden("history", ended.out)
    (asked,) = daemon.requests["QueryHistory"]
    assert (list(asked.subjects), list(asked.fields)) == (["gpu0", "gpu1"], ["power_watts"])
    assert (asked.window.seconds, asked.step.seconds) == (3600, 60)
    assert not asked.HasField("end_time")


def test_history_with_a_plot(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["QueryHistory"] = past.history()
    ended = gpuctl("history --plot --end 10m")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    golden("history_plot", ended.out)
    assert daemon.requests["QueryHistory"][0].end_time.seconds == NOW - 600


def test_history_as_csv(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["QueryHistory"] = past.history()
    rows = list(csv.DictReader(io.StringIO(gpuctl("history -o csv").out)))
    assert len(rows) == 60 + 40 + 60
    assert rows[1] == {
        "subject": past.UUID, "alias": "gpu0", "field": "memory_used_bytes", "unit": "bytes",
        "time": "2027-01-15T07:01:00Z", "min": str(GIB // 20), "mean": "53687091.2",
        "max": "53687092.2", "last": "53687091.2", "count": "6",
    } | {"min": "53687090.2"}  # fmt: skip


def test_history_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["QueryHistory"] = past.history()
    plain = json.loads(gpuctl("history -o json").out)
    assert plain["step"] == "60s"
    assert plain["series"][0]["points"][0]["count"] == 6
    lines = gpuctl("history -o jsonl").out.splitlines()
    assert [json.loads(line)["field"] for line in lines] == [
        "memory_used_bytes",
        "temperature_celsius",
        "power_watts",
    ]


def test_no_history(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["QueryHistory"] = h.QueryHistoryResponse()
    ended = gpuctl("history models/tiny")
    assert (ended.code, ended.out, ended.err) == (0, "", "no history\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("history --window soon", "is not a span of time"),
        ("history --end yesterday", "is neither a span nor a moment"),
        ("history -o name", "there are no names in this"),
        ("-o csv history", "'csv' is not one of"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(line: str, words: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl(line)
    assert ended.code == 2
    assert words in ended.err


def test_cells_are_means_and_gaps_stay() -> None:
    points = [(0.0, 1.0, 1), (5.0, 4.0, 2), (30.0, 7.0, 1), (99.0, 9.0, 1)]
    assert cells(points, 0, 100, 5) == [3.0, 7.0, None, None, 9.0]
    assert cells([(-5.0, 1.0, 1)], 0, 100, 2) == [None, None]
    assert cells(points, 5, 5, 2) == [None, None]
    assert filled([None, 1.0, None, None, None, 2.0], 2) == [None, 1.0, 1.0, 1.0, None, 2.0]


def test_a_sparkline_has_its_least_and_its_greatest() -> None:
    assert sparkline([0, None, 50, 100]) == "▁ ▅█"
    assert sparkline([0, None, 50, 100], plain=True) == "_ =#"
    assert sparkline([7, 7]) == "▁▁"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([None, None]) == "  "


def test_a_plot_has_a_dot_for_each_value_and_blanks_for_gaps() -> None:
    lines = list(plot([0, 7, None, None, 7, 0], 2, str))
    assert lines == ["7 ┤⢸ ⢱", "0 ┤⡸ ⢸"]
    assert list(plot([None], 2, str)) == []
    assert list(plot([0, 7, None, None], 2, str, plain=True)) == ["7 |*", "0 |*"]


def test_a_level_is_a_line_beside_its_value() -> None:
    lines = list(plot([3.0] * 4, 4, str))
    assert [line[:5] for line in lines] == ["    ┤", "3.0 ┤", "    ┤", "    ┤"]
    assert [len(line) > 5 for line in lines] == [False, True, False, False]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.5 * GIB, "bytes", "4.5G"),
        (2 * 1024**2, "bytes/s", "2M/s"),
        (61.26, "celsius", "61.3C"),
        (0.0123, "ratio", "0.012"),
        (0, "percent", "0%"),
        (1234.6, "MHz", "1235MHz"),
        (0.25, "seconds", "250ms"),
        (None, "watts", "-"),
        (12, "tokens/s", "12"),
    ],
)
def test_values(value: float | None, unit: str, text: str) -> None:
    assert value_text(value, unit) == text
