"""Over TLS: what is followed outlives the connection, events without one left out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access.fleet import Fleet, fleet, uri
from tests.gpuctl.leases.processes import line_with
from tests.gpuctl.test_terminal import PROGRAM, WAIT_SECONDS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def environment(place: Fleet, tmp_path: Path) -> dict[str, str]:
    """Of a coordinator: the current context is the fleet's, by its certificate."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GPUCTL_")}
    made = {**kept, "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    pair = (f"{place.folder}/clients/anna.pem", f"{place.folder}/clients/anna-key.pem")
    words = ("context", "add", "far", "--use", "--address", f"127.0.0.1:{place.port}")
    files = ("--ca", f"{place.folder}/ca.pem", "--cert", pair[0], "--key", pair[1])
    subprocess.run([*PROGRAM, *words, *files], env=made, check=True, capture_output=True)
    return made


@contextlib.contextmanager
def following(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, *words, "-o", "jsonl"],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def reserve(environment: dict[str, str]) -> str:
    made = subprocess.run(
        [*PROGRAM, "reserve", "--vram", "1MiB", "--device", "gpu0", "-o", "name"],
        env=environment, capture_output=True, text=True, check=True, timeout=WAIT_SECONDS,
    )  # fmt: skip
    return made.stdout.strip()


def test_events_and_snapshots_go_on_over_another_life_of_the_daemon(
    place: Fleet, environment: dict[str, str]
) -> None:
    with (
        following(environment, "watch", "--interval", "200ms") as watch,
        following(environment, "events", "--follow", "--limit", "1") as events,
    ):
        line_with(watch.stdout, '"devices"')
        before = reserve(environment)
        first = json.loads(line_with(events.stdout, before))
        place.gpud.restart()
        after = reserve(environment)
        assert events.stdout is not None
        sequences = [first["sequence"]]
        for line in events.stdout:
            told = json.loads(line)
            sequences.append(told["sequence"])
            if told["subject"] == after:
                break
        assert sequences == [*range(sequences[0], sequences[0] + len(sequences))]
        assert told["actor"] == uri("anna")
        assert watch.stdout is not None
        while json.loads(watch.stdout.readline())["devices"][0]["granted_bytes"] < 2 << 20:
            pass
        for process in (watch, events):
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=WAIT_SECONDS)
            assert process.returncode == 130
            told_of_gap = "what it showed meanwhile was not seen"  # where it took long
            assert all(told_of_gap in line for line in said.strip().splitlines()[-1:])
