from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from gpuctl.plotting.braille import plot
from gpuctl.plotting.grid import apart, cells, filled
from gpuctl.plotting.sparkline import sparkline
from gpuctl.plotting.values import value_text
from gpud.v1 import history_pb2 as h
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import past
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.samples import GIB, NOW, moment

Golden = Callable[[str, str], None]


@pytest.mark.usefixtures("terminal")
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


def test_an_end_that_is_yet_to_come_is_said_so(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["QueryHistory"] = past.history()
    assert "is yet to come" not in gpuctl("history --end 10m").err
    ended = gpuctl("history --end 2099-01-01T00:00")
    assert ended.code == 0
    assert ended.err == "2099-01-01 00:00:00 is yet to come: this ends now\n"


@pytest.mark.usefixtures("terminal")
def test_history_with_a_plot(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    answer = past.history()
    answer.end_time.CopyFrom(moment(-600))
    daemon.answers["QueryHistory"] = answer
    ended = gpuctl("history --plot --end 10m")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    golden("history_plot", ended.out)
    assert daemon.requests["QueryHistory"][0].end_time.seconds == NOW - 600


def test_it_ends_when_gpud_says_and_begins_with_its_first_reading(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    answer = past.history()
    for series in answer.series:
        del series.points[:10]
    daemon.answers["QueryHistory"] = answer
    told, begins, *_ = gpuctl("history --end 2030-01-01T00:00:00Z").out.splitlines()
    assert told == "1h until 2027-01-15 08:00:00, step 1m"
    # And not with the block that it is kept in, at 07:00.
    assert begins == "first reading 2027-01-15 07:10:00"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("10m", NOW - 600),
        ("2027-01-15T07:00:00Z", NOW - 3600),
        ("2027-01-15T08:00:00+01:00", NOW - 3600),
        # As tables show it, two hours east of Greenwich.
        ("2027-01-15 09:00:00", NOW - 3600),
        ("2027-01-15T09:00", NOW - 3600),
        ("2027-01-15", NOW - 36000),
    ],
)
def test_a_moment_is_written_as_it_is_shown(
    told: str,
    seconds: int,
    gpuctl: Gpuctl,
    daemon: FakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    daemon.answers["QueryHistory"] = past.history()
    assert gpuctl("history", "--end", told).code == 0
    assert daemon.requests["QueryHistory"][0].end_time.seconds == seconds


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("name", ["power_watts", "pcie_received_bytes_per_second"])
def test_a_sparkline_gives_way_before_the_names_that_an_option_takes(
    name: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    one = past.series("i-abcdef", name, "watts", *[1234.5] * 60)
    daemon.answers["QueryHistory"] = h.QueryHistoryResponse(
        series=[one], step=Duration(seconds=60), end_time=moment()
    )
    *_, row = gpuctl("history").out.splitlines()
    assert row.startswith(f"i-abcdef  {name}  ▁▁▁▁▁▁▁▁")
    assert len(row) <= 80
    assert "…" not in row


def test_what_is_read_every_few_seconds_is_a_line_and_not_dots(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    one = past.series("i-1", "requests_running", "count")
    for at in (*range(0, 150, 5), *range(200, 300, 5)):
        point = one.points.add(min=1, mean=1, max=1, last=1, count=1)
        point.time.CopyFrom(moment(at - 300))
    daemon.answers["QueryHistory"] = h.QueryHistoryResponse(
        series=[one], step=Duration(seconds=1), end_time=moment()
    )
    out = gpuctl("history --window 5m --plot").out
    assert "first reading" not in out
    (drawn,) = [line.partition("┤")[2] for line in out.splitlines() if "⣀" in line]
    # Where nothing came for 50 seconds is a gap.
    assert len(drawn.split()) == 2
    assert all(set(part) <= set("⢀⣀⡀") for part in drawn.split())


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
        ("history --end 0001-01-01", "is neither a span nor a moment"),
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
    assert (apart(points), apart(points[:1])) == (25.0, 0.0)
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
        (61.26, "celsius", "61.3°C"),
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
