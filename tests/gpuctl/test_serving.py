"""What an engine counts, in columns."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from gpuctl.commands.serving import METRIC_COLUMNS, latency_text, requests_text
from gpud.v1.instances_pb2 import Instance, InstanceMetrics, Latency


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, "-"),
        ({"requests_waiting": 2}, "-"),
        ({"requests_running": 0}, "0"),
        ({"requests_running": 2, "slots": 4, "slots_full": False, "requests_waiting": 0}, "2/4"),
        ({"requests_running": 4, "slots": 4, "slots_full": True}, "4/4 full"),
        (
            {"requests_running": 4, "slots": 4, "slots_full": True, "requests_waiting": 3},
            "4/4 full, 3 wait",
        ),
        ({"requests_running": 1, "requests_waiting": 3}, "1, 3 wait"),
    ],
)
def test_requests_beside_slots(told: dict[str, Any], text: str) -> None:
    assert requests_text(Instance(metrics=InstanceMetrics(**told))) == text


def test_latency_says_where_it_is_from() -> None:
    half, two = Duration(nanos=500_000_000), Duration(seconds=2)
    assert latency_text(Latency(p50=half, p99=two, source="engine")) == "500ms/2s"
    assert latency_text(Latency(p50=half, p99=two, source="benchmark")) == "500ms/2s (bench)"
    assert latency_text(Latency(p50=half, source="engine")) == "500ms/-"
    assert latency_text(Latency()) == "-"


def test_of_an_engine_that_tells_nothing_every_column_is_unknown() -> None:
    cells = [column.cell(Instance()) for column in METRIC_COLUMNS]
    assert set(cells) == {"-", ""}
    metrics = InstanceMetrics(
        requests_per_second=2.5, error_ratio=0.012, cache_hit_ratio=1.0, kv_used_percent=37.5
    )
    shown = [column.cell(Instance(metrics=metrics)) for column in METRIC_COLUMNS]
    assert [each for each in shown if each not in {"-", ""}] == ["2.5", "1.2%", "100%", "37.5%"]
