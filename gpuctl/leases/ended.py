"""Whether it was gpud that ended a command, and why: from its journal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuctl.failures import Failure
from gpuctl.messages import timestamp
from gpud.v1.node_pb2 import Event, ListEventsRequest

if TYPE_CHECKING:
    from gpuctl.client import Client

_TYPE = "process.terminated"
# Looking costs at most so long, whatever answers.
_LIMIT_SECONDS = 1.0
# gpud sends the signal first and writes it down then, so the first look may come too soon.
_PAUSES_SECONDS = (0.0, 0.1, 0.3)


def told_end(client: Client, name: str, pid: int, since: float) -> str:
    """What gpud wrote of ending a process since then (of the epoch); empty if nothing.

    It is the process of this pid, or another one of the reservation of this name.
    """
    request = ListEventsRequest(type=_TYPE, since=timestamp(since))
    until = time.monotonic() + _LIMIT_SECONDS
    for pause in _PAUSES_SECONDS:
        time.sleep(pause)
        left = max(0.01, until - time.monotonic())
        try:
            events = client.call(client.node.ListEvents, request, within_seconds=left).events
        except Failure:
            return ""
        if text := _end_text(events, name, pid):
            return text
    return ""


def _end_text(newest_first: Iterable[Event], name: str, pid: int) -> str:
    ends = [event for event in newest_first if event.type == _TYPE]
    for event in ends:
        if event.details.get("pid") == str(pid):
            return f"gpud ended it: {event.reason}"
    for event in ends:
        if name in {event.subject, event.details.get("reservation")}:
            return f"gpud ended a process of {name}: {event.reason}"
    return ""
