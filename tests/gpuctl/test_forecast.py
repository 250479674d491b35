from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import past
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.mark.usefixtures("terminal")
def test_forecast(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["GetForecast"] = past.forecast()
    ended = gpuctl("forecast gpu0 gpu1 --horizon 90m")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert "gpu0 is full in 34m" in ended.out
    golden("forecast", ended.out)
    (asked,) = daemon.requests["GetForecast"]
    assert (list(asked.devices), asked.horizon.seconds) == (["gpu0", "gpu1"], 5400)


def test_forecast_wide(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    daemon.answers["GetForecast"] = past.forecast()
    golden("forecast_wide", gpuctl("forecast -o wide").out)


def test_forecast_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetForecast"] = past.forecast()
    plain = json.loads(gpuctl("forecast -o json").out)
    first, _, last = plain["forecasts"]
    assert (first["method"], first["confidence"]) == ("drift", 0.8)
    assert first["known"][0]["bytes"] == -(1024**3)
    assert "expected" not in last
    assert last["refusal"].startswith("not enough history")
    assert len(gpuctl("forecast -o jsonl").out.splitlines()) == 3


@pytest.mark.usefixtures("terminal")
def test_what_is_the_same_of_many_is_said_once(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    answer = past.forecast()
    _, calm, young = answer.forecasts
    answer.ClearField("forecasts")
    for at in range(8):
        for field in ("memory_used_bytes", "temperature_celsius"):
            each = answer.forecasts.add()
            each.CopyFrom(young)
            each.alias, each.field = f"gpu{at}", field
    for at in (8, 9):
        answer.forecasts.add().CopyFrom(calm)
        answer.forecasts[-1].alias = f"gpu{at}"
    daemon.answers["GetForecast"] = answer
    out = gpuctl("forecast").out
    assert all(len(line) <= 80 for line in out.splitlines())
    eight = ", ".join(f"gpu{at}" for at in range(8))
    told = " ".join(out.split())
    assert told.count("not enough history: have 42m, need 5h") == 1
    assert f"ask later: memory of {eight}; heat of {eight}" in told
    assert "not critically hot within 1h, as far as can be told: gpu8, gpu9" in told


@pytest.mark.usefixtures("terminal")
def test_what_held_less_often_than_claimed_is_said_so(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    answer = past.forecast()
    words = "LOW and HIGH held the truth less often than claimed"
    answer.forecasts[0].past_coverage = 0.797  # shown as 80 %, which is what is claimed
    daemon.answers["GetForecast"] = answer
    assert words not in gpuctl("forecast").out
    answer.forecasts[0].past_coverage = 0.69
    answer.forecasts[1].past_coverage = 0.75
    out = gpuctl("forecast").out
    assert all(len(line) <= 80 for line in out.splitlines())
    expected = f"{words}: memory of gpu0 69% of 80%, heat of gpu0 75% of 80%"
    assert expected in " ".join(out.split())


@pytest.mark.usefixtures("terminal")
def test_what_could_be_full_is_not_among_those_that_will_not(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    answer = past.forecast()
    full, heat, _ = answer.forecasts
    full.ClearField("reaches_limit_time")
    full.may_reach_limit = True
    answer.forecasts.add().CopyFrom(full)
    answer.forecasts[-1].alias, answer.forecasts[-1].may_reach_limit = "gpu7", False
    heat.may_reach_limit = True
    daemon.answers["GetForecast"] = answer
    lines = gpuctl("forecast").out.splitlines()
    assert "could be full within 1h: gpu0" in lines
    assert "could be critically hot within 1h: gpu0" in lines
    assert "not full within 1h, as far as can be told: gpu7" in lines


@pytest.mark.usefixtures("terminal")
def test_where_nothing_can_be_told_it_ends_with_a_code(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    answer = past.forecast()
    del answer.forecasts[:2]
    daemon.answers["GetForecast"] = answer
    for form in ("table", "json"):
        ended = gpuctl(f"forecast -o {form}")
        assert ended.code == 73
        assert "not enough history: have 42m" in ended.out
        assert "cannot foretell anything yet" in ended.err
    del answer.forecasts[:]
    assert gpuctl("forecast").code == 0  # there are no devices


def test_what_is_full_is_said_so(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    answer = past.forecast()
    answer.forecasts[0].reaches_limit_time.CopyFrom(answer.time)
    answer.forecasts[1].reaches_limit_time.CopyFrom(answer.time)
    daemon.answers["GetForecast"] = answer
    out = gpuctl("forecast").out
    assert "gpu0 is full now" in out
    assert "gpu0 is critically hot now" in out
