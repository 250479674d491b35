"""gpuctl run inside the test, against a scripted daemon."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuctl.main import run
from gpud.v1 import alerts_pb2, devices_pb2, instances_pb2, models_pb2, node_pb2, reservations_pb2
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run of gpuctl ended."""

    code: int
    out: str
    err: str


Gpuctl = Callable[..., Ended]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon with the reads of `samples` scripted."""
    with FakeDaemon(tmp_path / "gpud.sock") as fake:
        fake.answers.update(
            GetNode=node_pb2.GetNodeResponse(node=samples.node()),
            ListDevices=devices_pb2.ListDevicesResponse(devices=samples.devices()),
            ListInstances=instances_pb2.ListInstancesResponse(instances=[samples.instance()]),
            ListReservations=reservations_pb2.ListReservationsResponse(
                reservations=[samples.reservation()]
            ),
            ListModels=models_pb2.ListModelsResponse(models=[samples.model()]),
            ListEvents=node_pb2.ListEventsResponse(events=[samples.event(9), samples.event(8)]),
            ListAlerts=alerts_pb2.ListAlertsResponse(),
        )
        yield fake


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in (
        "GPUCTL_ADDRESS", "GPUCTL_CONTEXT", "GPUCTL_TOKEN_FILE", "NO_COLOR", "XDG_RUNTIME_DIR"
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `gpuctl`: stdout is a terminal of 80 columns without colours, and not a pipe."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def gpuctl(
    daemon: FakeDaemon,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Gpuctl:
    """Run a command line, or its arguments one by one, against the scripted daemon."""
    monkeypatch.setenv("GPUCTL_ADDRESS", daemon.address)
    is_terminal = "terminal" in request.fixturenames

    def go(*arguments: str) -> Ended:
        # Here, for what pytest puts in the place of stdout differs between fixture and test.
        monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
        words = shlex.split(arguments[0]) if len(arguments) == 1 else arguments
        code = run(words, now=lambda: float(samples.NOW))
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return go


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/gpuctl/NAME.txt; GOLDEN=write makes the file anew."""

    def compare(name: str, text: str) -> None:
        path = request.config.rootpath / "tests" / "golden" / "gpuctl" / f"{name}.txt"
        if os.environ.get("GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text()

    return compare
