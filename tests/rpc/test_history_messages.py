"""What is asked of the past, before anything is looked up, and how it is answered."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.errors import DeviceNotFound
from gpud.rpc import history_messages
from gpud.telemetry.history.asking import Answer
from gpud.telemetry.history.history import HOST
from gpud.v1.history_pb2 import QueryHistoryRequest

NOW = 1_700_000_000.0
KNOWN = {HOST: "", "devices/GPU-0": "gpu0", "devices/GPU-1": "gpu1", "instances/i-7": ""}


def ends(**request: Timestamp) -> tuple[float, float, Timestamp]:
    """Where the window begins and ends, and what the answer says of it."""
    asked = history_messages.asked(
        QueryHistoryRequest(subjects=[HOST], **request), KNOWN, None, NOW
    )
    found = Answer(series=(), step=10, oldest=None)
    return asked.begin, asked.end, history_messages.answer(found, KNOWN, asked.end).end_time


def test_an_answer_tells_where_its_window_ends() -> None:
    now = Timestamp(seconds=1_700_000_000)
    assert ends() == (NOW - 3600, NOW, now)
    # What is to come is in no history.
    assert ends(end_time=Timestamp(seconds=1_900_000_000)) == (NOW - 3600, NOW, now)
    before = Timestamp(seconds=1_600_000_000)
    assert ends(end_time=before) == (1_599_996_400.0, 1_600_000_000.0, before)


def subjects(**request: Any) -> tuple[str, ...]:
    """Whose past is asked for."""
    return history_messages.asked(QueryHistoryRequest(**request), KNOWN, None, NOW).subjects


def test_a_device_is_one_subject_more() -> None:
    assert subjects(device="devices/GPU-1") == ("devices/GPU-1",)
    assert subjects(device="gpu1", subjects=["gpu0", "instances/i-7"]) == (
        "devices/GPU-0",
        "instances/i-7",
        "devices/GPU-1",
    )
    assert subjects(device=HOST) == (HOST,)
    for name in ("instances/i-7", "i-7", "gpu2"):
        with pytest.raises(DeviceNotFound):
            subjects(device=name)
