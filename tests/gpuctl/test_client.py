from __future__ import annotations

from time import monotonic

import pytest

from gpuctl.access.context import Context
from gpuctl.client import Client
from gpud.v1.telemetry_pb2 import WatchSnapshotsRequest, WatchSnapshotsResponse
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples

# grpc's poller of a channel's state, once started, holds its end up for 200 ms.
POLLER_SECONDS = 0.2


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = [
        WatchSnapshotsResponse(snapshot=samples.snapshot()), FakeDaemon.HANG
    ]  # fmt: skip


def seconds_of_a_stream(daemon: FakeDaemon) -> float:
    began = monotonic()
    client = Client(Context(address=daemon.address), timeout_seconds=10)
    request = WatchSnapshotsRequest()
    with client.stream(client.telemetry.WatchSnapshots, request) as answers:
        next(answers)
    client.close()
    return monotonic() - began


def test_a_stream_does_not_wait_for_a_poller(daemon: FakeDaemon) -> None:
    assert min(seconds_of_a_stream(daemon) for _ in range(5)) < POLLER_SECONDS / 2
