"""The stand-in libnvidia-ml.so.1, and the real NVML driver on it, in a child process.

The library is found through LD_LIBRARY_PATH, which the loader reads when a process starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pynvml
import pytest

from gpud.clock import SystemClock
from gpud.devices.driver import (
    Aliases,
    Asking,
    ComputeModeRefused,
    DeviceLost,
    DriverOutdated,
    DriverUnavailable,
    ListRefused,
    ModeRefusal,
    unheard,
)
from gpud.devices.sampling.child import child_environment
from gpud.devices.snapshot import DeviceInfo, ProcessUse, Readings

SOURCE = Path(__file__).with_name("nvml_standin.c")


def library_folder(factory: pytest.TempPathFactory, *, old_driver: bool = False) -> Path:
    """The folder of the compiled library; compiled once in a run of the tests."""
    folder = factory.getbasetemp() / ("nvml-470" if old_driver else "nvml")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler for the stand-in library: install gcc")
    if not folder.exists():
        folder.mkdir()
        subprocess.run(
            [
                compiler, "-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror",
                *(["-DOLD_DRIVER"] if old_driver else []),
                "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE),
            ],
            check=True,
            timeout=60,
        )  # fmt: skip
    return folder


def bind(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    """Have the binding call this object in place of the library."""
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


class Failed(Exception):
    """The child's NVML driver raised something else."""


class NvmlChild:
    """The NVML driver in a process of its own; the same methods, so it is a Driver itself."""

    def __init__(self, library: Path, machine: str = "healthy", **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.devices.standin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(os.environ)
            | {"LD_LIBRARY_PATH": str(library), "NVML_STANDIN": machine}
            | environment,
        )
        self.pid = self._process.pid
        try:
            self._call("open", type_=bool)
        except BaseException:
            self.end()
            raise

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        return self._call("devices", type_=tuple[DeviceInfo, ...])

    def readings(self, uuid: str) -> Readings:
        return self._call("readings", uuid, type_=Readings)

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        return self._call("processes", uuid, type_=tuple[ProcessUse, ...] | None)

    def alarms(self) -> tuple[tuple[str, int], ...]:
        return self._call("alarms", type_=tuple[tuple[str, int], ...])

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        self._call("set_compute_mode", uuid, mode, type_=None)

    def close(self) -> None:
        self._call("close", type_=None)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def _call(self, *request: str, type_: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(msgspec.json.encode(request) + b"\n")
        stdin.flush()
        error, uuid, value = msgspec.json.decode(
            stdout.readline(), type=tuple[str, str, msgspec.Raw]
        )
        text = bytes(value).decode()
        if error == "DeviceLost":
            raise DeviceLost(uuid=uuid, reason=text)
        if error == "ListRefused":
            raise ListRefused(uuid=uuid, reason=text)
        if error == "ComputeModeRefused":
            why = ModeRefusal(msgspec.json.decode(value))
            raise ComputeModeRefused(uuid=uuid, mode=request[-1], why=why)
        if error == "DriverUnavailable":
            raise DriverUnavailable(driver="nvml", reason=text)
        if error == "DriverOutdated":
            raise DriverOutdated(driver="nvml", added=tuple(text.strip('"').split(",")))
        if error:
            raise Failed(text)
        return msgspec.json.decode(value, type=type_)


def main() -> None:
    """Serve calls, a line of JSON each."""
    from gpud.devices.nvml import NvmlDriver
    from gpud.devices.processes import ProcessTable

    table = ProcessTable()
    table.scan(SystemClock().now().boottime)
    driver: NvmlDriver | None = None
    for line in sys.stdin.buffer:
        method, *arguments = msgspec.json.decode(line)
        answer: tuple[str, str, Any]
        try:
            if driver is None:
                sysfs = Path(os.environ.get("NVML_STANDIN_SYSFS", "/sys"))
                driver = NvmlDriver(table, Aliases(), sysfs=sysfs)
                answer = ("", "", True)
            else:
                answer = ("", "", getattr(driver, method)(*arguments))
        except DeviceLost as lost:
            answer = ("DeviceLost", lost.uuid, lost.reason)
        except ListRefused as refused:
            answer = ("ListRefused", refused.uuid, refused.reason)
        except ComputeModeRefused as refused:
            answer = ("ComputeModeRefused", refused.uuid, refused.why.value)
        except DriverUnavailable as unavailable:
            answer = ("DriverUnavailable", "", unavailable.reason)
        except DriverOutdated as outdated:
            answer = ("DriverOutdated", "", ",".join(outdated.added))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
