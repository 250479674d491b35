"""`make demo` shows what it promises, and stops with a clear message where it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import PACKAGING, ROOT

DEMO = PACKAGING / "demo.py"
MAX_SECONDS = 30.0


def demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def engine() -> str:
    """The real llama-server, by the rule of tests/README.md."""
    built = ROOT / ".build" / "llama" / "llama-server"
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    found = found or (str(built) if built.exists() else None)
    if found is None:
        pytest.fail("there is no llama-server; `make engine` gets one")
    return found


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_it_tells_the_whole_story_in_time(tmp_path: Path) -> None:
    shown = demo(LLAMA_SERVER=engine(), HOME=str(tmp_path))
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-4000:]
    commands = re.findall(r"^\$ gpuctl (\w+)", shown.stdout, re.MULTILINE)
    assert list(dict.fromkeys(commands)) == [
        "status", "devices", "reserve", "reservations", "estimate", "load", "instances",
        "watch", "unload", "release", "events",
    ]  # fmt: skip
    assert "The memory came back" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    seconds = re.search(r"Done in ([0-9.]+) s", shown.stdout)
    assert seconds is not None
    assert float(seconds[1]) < MAX_SECONDS
    assert list(tmp_path.iterdir()) == []


def test_without_an_engine_it_says_what_to_do() -> None:
    before = set((ROOT / ".build").glob("demo.*"))
    shown = demo()
    assert shown.returncode == 1
    assert "run `make demo`, which gets one" in shown.stderr
    assert set((ROOT / ".build").glob("demo.*")) == before
