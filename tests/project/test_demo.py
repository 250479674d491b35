"""`make demo` shows what it promises, and stops with a clear message where it cannot."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import PACKAGING, ROOT

DEMO = PACKAGING / "demo.py"
# Of a processor: how long it takes on a host that does much else says nothing of it.
MAX_PROCESSOR_SECONDS = 30.0


def demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def processor_seconds() -> float:
    """What processes that this one has waited for took, and those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_it_tells_the_whole_story_in_time(llama_server: Path, tmp_path: Path) -> None:
    before = processor_seconds()
    shown = demo(LLAMA_SERVER=str(llama_server), HOME=str(tmp_path))
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-4000:]
    commands = re.findall(r"^\$ gpuctl (\w+)", shown.stdout, re.MULTILINE)
    assert list(dict.fromkeys(commands)) == [
        "status", "devices", "reserve", "reservations", "estimate", "load", "instances",
        "watch", "unload", "release", "events",
    ]  # fmt: skip
    assert "The memory came back" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    assert re.search(r"Done in [0-9.]+ s", shown.stdout)
    assert 0.5 < processor_seconds() - before < MAX_PROCESSOR_SECONDS
    assert list(tmp_path.iterdir()) == []


def test_without_an_engine_it_says_what_to_do() -> None:
    before = set((ROOT / ".build").glob("demo.*"))
    shown = demo()
    assert shown.returncode == 1
    assert "run `make demo`, which gets one" in shown.stderr
    assert set((ROOT / ".build").glob("demo.*")) == before
