"""What vLLM counts, read: from texts of real runs, and of other versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.vllm import metrics

GOLDEN = Path(__file__).parents[2] / "golden/vllm"


def text(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text()


def test_the_pulse_tells_work_from_waiting() -> None:
    idle, busy = (metrics.pulse(text(name)) for name in ("metrics_idle", "metrics_busy"))
    assert (idle.running, idle.waiting, idle.progress, idle.completed) == (0, 0, 0.0, 0.0)
    assert (busy.running, busy.waiting, busy.tokens) == (1, 0, 43.0)
    assert busy.progress is not None
    assert busy.progress > 0
    assert busy.kv_used_fraction == pytest.approx(1 / 255)
    assert not busy.sleeping


def test_a_server_that_sleeps_says_so() -> None:
    states = 'vllm:engine_sleep_state{engine="0",model_name="t",sleep_state="%s"} %s.0'
    asleep = "\n".join(
        states % (state, int(state != "awake")) for state in ("awake", "discard_all")
    )
    assert metrics.pulse(asleep).sleeping
    assert not metrics.pulse(asleep.replace("} 0.0", "} 1.0")).sleeping


def test_counters_of_several_cores_are_summed_and_missing_ones_unknown() -> None:
    told = (
        'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 1.0\n'
        'vllm:generation_tokens_total{engine="0"} 1e3\n'
    )
    found = metrics.pulse(told)
    assert (found.running, found.waiting, found.progress) == (3, None, 1000.0)
    empty = metrics.pulse("")
    assert (empty.running, empty.progress, empty.sleeping) == (None, None, False)


def test_speed_is_made_of_sums() -> None:
    found = metrics.speed(text("metrics_busy"))
    assert found is not None
    assert (found.first_tokens, found.later_tokens) == (1.0, 42.0)
    assert found.later_tokens / found.later_seconds == pytest.approx(38.2, rel=0.01)
    assert metrics.speed("vllm:num_requests_running 1.0") is None


def test_the_cache_tells_its_size() -> None:
    told = metrics.cache_config(text("metrics_idle"))
    assert (told["kv_cache_memory_bytes"], told["kv_cache_size_tokens"]) == ("16777216", "32768")
    assert told["block_size"] == "128"
    assert metrics.cache_config("") == {}
