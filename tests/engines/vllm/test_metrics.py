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


def test_of_a_server_at_work_all_is_read() -> None:
    """17 requests, of which the client saw 12 take some 0.3 s each."""
    told = metrics.counters(text("metrics_served"))
    assert (told.requests, told.failed, told.preemptions) == (17, 0, 0)
    assert (told.generated_tokens, told.prompt_tokens, told.looked_up_tokens) == (1701, 624, 624)
    assert (told.running, told.waiting, told.kv_used_ratio, told.steps) == (0, 0, 0, 1701)
    assert told.request is not None
    assert (len(told.request.bounds), told.request.count) == (22, 17)
    assert told.inter_token is not None
    assert told.inter_token.count == 1701 - 17
    for spans in (told.time_to_first_token, told.queue, told.prefill, told.decode):
        assert spans is not None
        assert spans.count == 17
    assert not told.is_cut


def finished(**reasons: int) -> str:
    return "".join(
        f'vllm:request_success_total{{finished_reason="{reason}"}} {count}.0\n'
        for reason, count in reasons.items()
    )


@pytest.mark.parametrize(
    ("told", "requests", "failed"),
    [
        ("", None, None),
        (finished(stop=3, length=4), 7, 0),
        (finished(stop=3, abort=4), 7, 0),
        (finished(stop=3, error=1), 4, 1),
        (finished(stop=3) + 'vllm:admission_rejections_total{reason="a"} 2\n', 5, 2),
        (finished(stop=3) + 'http_requests_total{handler="/v1/chat",status="5xx"} 2\n', 5, 2),
        (
            finished(stop=3, error=2)
            + 'http_requests_total{handler="/v1/chat",status="5xx"} 2\n'
            + 'http_requests_total{handler="/v1/chat",status="2xx"} 9\n'
            + 'http_requests_total{handler="/v1/chat",status="4xx"} 9\n'
            + 'http_requests_total{handler="/sleep",status="5xx"} 9\n',
            5,
            2,
        ),
    ],
)
def test_a_failure_counts_once_and_a_client_that_left_is_none(
    told: str, requests: int | None, failed: int | None
) -> None:
    found = metrics.counters(told)
    assert (found.requests, found.failed) == (requests, failed)


def test_older_names_mean_the_same() -> None:
    old = metrics.counters(
        "vllm:gpu_cache_usage_perc 0.5\nvllm:time_per_output_token_seconds_count 3\n"
        "vllm:time_per_output_token_seconds_sum 6\n"
    )
    assert old.kv_used_ratio == 0.5
    assert old.inter_token is not None
    assert (old.inter_token.count, old.inter_token.sum) == (3, 6)
    both = metrics.counters(
        "vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n"
        "vllm:time_per_output_token_seconds_count 3\nvllm:inter_token_latency_seconds_count 4\n"
    )
    assert both.kv_used_ratio == 0.25
    assert both.inter_token is not None
    assert both.inter_token.count == 4


def test_of_several_cores_the_fullest_cache_is_told() -> None:
    told = metrics.counters(
        'vllm:kv_cache_usage_perc{engine="0"} 0.1\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n'
    )
    assert told.kv_used_ratio == 0.9
