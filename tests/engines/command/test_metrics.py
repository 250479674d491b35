"""A pulse from metrics in Prometheus' text format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.command.metrics import pulse, totals
from gpud.engines.engine import Pulse

TEXT = """\
# HELP jobs_running Jobs.
# TYPE jobs_running gauge
jobs_running{queue="a"} 2
jobs_running{queue="b",odd="}\\" 9 {"} 1 1700000000000
jobs_waiting NaN
tokens_total 1.5e+03
jobs_running_max 7
http_seconds_bucket{le="+Inf"} 12
done_total -3
"""
COUNTERS = (("running", "jobs_running"), ("waiting", "jobs_waiting"), ("progress", "tokens_total"))


def test_series_of_one_metric_add_up() -> None:
    assert totals(TEXT)["jobs_running"] == 3


def test_counters_are_told_by_their_names() -> None:
    assert pulse(TEXT, COUNTERS) == Pulse(running=3, waiting=None, progress=1500.0)
    assert pulse(TEXT, [("completed", "http_seconds_bucket")]) == Pulse(completed=12)
    assert pulse(TEXT, [("tokens", "tokens_total")]) == Pulse(tokens=1500.0)
    assert pulse(TEXT, [("running", "done_total")]).running == 0
    assert pulse(TEXT, [("running", "jobs")]) == Pulse()


@given(text=st.text() | st.text('jobs_running{}"\\= 1\n#', max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    told = pulse(text, COUNTERS)
    assert told.running is None or told.running >= 0
