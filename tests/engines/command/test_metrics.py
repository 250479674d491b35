"""What a server counts, by the names that its entry gives to its metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.command.metrics import HISTOGRAMS, NUMBERS, counters, pulse
from gpud.engines.command.spec import COUNTERS
from gpud.engines.counting.counters import Counters
from gpud.engines.engine import Pulse
from gpud.settings import CounterName

TEXT = """\
# HELP jobs_running Jobs.
# TYPE jobs_running gauge
jobs_running{queue="a"} 2
jobs_running{queue="b",odd="}\\" 9 {"} 1 1700000000000
jobs_waiting NaN
tokens_total 1.5e+03
jobs_running_max 7
http_seconds_bucket{le="0.5"} 9
http_seconds_bucket{le="+Inf"} 12
http_seconds_sum 6
done_total -3
requests_done 12
requests_bad 3
prompts 100
prompts_cached 40
cache 0.25
"""
NAMED = (("running", "jobs_running"), ("waiting", "jobs_waiting"), ("progress", "tokens_total"))


def test_series_of_one_metric_add_up_and_those_that_are_no_number_are_unknown() -> None:
    assert pulse(TEXT, NAMED) == Pulse(running=3, waiting=None, progress=1500.0)
    assert pulse(TEXT, [("completed", "http_seconds_bucket")]) == Pulse(completed=21)
    assert pulse(TEXT, [("tokens", "tokens_total")]) == Pulse(tokens=1500.0)
    assert pulse(TEXT, [("running", "done_total")]).running is None
    assert pulse(TEXT, [("running", "jobs")]) == Pulse()


def test_all_that_may_be_named_is_read() -> None:
    told = counters(
        TEXT,
        [
            ("completed", "requests_done"),
            ("failed", "requests_bad"),
            ("prompt_tokens", "prompts"),
            ("cached_tokens", "prompts_cached"),
            ("slots", "jobs_running_max"),
            ("kv_used", "cache"),
            ("request", "http_seconds"),
            ("tokens", "done_total"),
        ],
    )
    assert (told.requests, told.failed, told.slots, told.kv_used_ratio) == (12, 3, 7, 0.25)
    assert (told.cached_tokens, told.looked_up_tokens) == (40, 100)
    assert told.request is not None
    assert (told.request.counts, told.request.sum) == ((9, 12), 6)
    assert told.generated_tokens is None, "no server has given less than none"
    assert told.inter_token is None


def test_what_no_server_can_have_counted_is_unknown_and_named() -> None:
    named = (
        ("running", "jobs"),
        ("waiting", "q"),
        ("slots", "places"),
        ("tokens", "tok"),
        ("kv_used", "cache"),
        ("completed", "done"),
        ("failed", "absent"),
    )
    text = 'jobs -3\nq +Inf\nplaces 1e300\ntok -7\ncache 1.5\ndone{a="1"} NaN\ndone{a="2"} 4\n'
    told = counters(text, named)
    assert told.senseless == ("tok", "jobs", "q", "places", "cache")
    assert told == Counters(requests=4, senseless=told.senseless)
    assert not counters("jobs 0\nq 2\n", named).senseless


def test_the_configuration_names_the_same() -> None:
    choices = [name for each in CounterName.__args__ for name in each.__args__]
    assert sorted(choices) == sorted(COUNTERS) == sorted((*NUMBERS, *HISTOGRAMS))


@pytest.mark.parametrize("field", COUNTERS)
@given(text=st.text() | st.text('jobs_running{}"\\= 1\n#', max_size=60))
def test_no_text_breaks_it(field: str, text: str) -> None:
    told = pulse(text, [(field, "jobs_running")])
    assert told.running is None or told.running >= 0
    assert told.counters is not None


def test_nobody_says_that_its_tokens_are_counted_as_they_are_given() -> None:
    told = counters(TEXT, [("tokens", "tokens_total")])
    assert (told.generated_tokens, told.given_tokens) == (1500.0, None)
