"""packaging/gpud.service: valid, hardened, and not in the way of engines that outlive gpud."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import PACKAGING

UNIT = PACKAGING / "gpud.service"
# Of 10, in tenths: `systemd-analyze security` calls everything below 3 "OK".
MAX_EXPOSURE_TENTHS = 25
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this system"
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as it would be on a system that has the program."""
    program = UNIT.read_text().replace("/usr/bin/gpud", sys.executable)
    path = tmp_path / "gpud.service"
    path.write_text(program)
    return path


def service_lines() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def analyze(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=50
    )


@needs_systemd
def test_it_is_valid(installed: Path) -> None:
    verdict = analyze("verify", "--man=no", installed)
    assert (verdict.returncode, verdict.stderr) == (0, "")


@needs_systemd
def test_it_is_hardened(installed: Path) -> None:
    verdict = analyze(
        "security", "--offline=true", f"--threshold={MAX_EXPOSURE_TENTHS}", installed
    )
    assert verdict.returncode == 0, verdict.stdout.splitlines()[-1]


def test_engines_outlive_a_restart() -> None:
    service = service_lines()
    assert service["KillMode"] == "process"
    assert service["PrivateTmp"] == "no"
    assert service["RemoveIPC"] == "no"
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert "MemoryDenyWriteExecute" not in service


def test_readiness_and_watchdog_are_told() -> None:
    service = service_lines()
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) > 0
    assert "GRPC_ENABLE_FORK_SUPPORT=0" in service["Environment"].split()


def test_a_bad_configuration_is_not_retried() -> None:
    service = service_lines()
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
