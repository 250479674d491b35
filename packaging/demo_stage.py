"""What the demo stands on: its folder, its commands, its daemon, the traces it looks for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
COMMAND_LIMIT_SECONDS = 60.0
START_LIMIT_SECONDS = 30.0
STOP_LIMIT_SECONDS = 20.0
# A Unix socket's path holds 107 bytes; the longest name below it takes 12.
LONGEST_RUNTIME_FOLDER = 95
PR_SET_CHILD_SUBREAPER = 36


class DemoFailed(Exception):
    """The demo cannot go on; the text says why, and what to do where something can be done."""


class Stage:
    """A folder under .build, and every process that the demo starts."""

    def __init__(self) -> None:
        (ROOT / ".build").mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="demo.", dir=ROOT / ".build"))
        self.runtime = self.folder
        if len(os.fsencode(self.folder)) > LONGEST_RUNTIME_FOLDER:
            self.runtime = Path(tempfile.mkdtemp(prefix="gpud-demo."))
        self.socket = self.runtime / "gpud.sock"
        (self.folder / "tmp").mkdir()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._traces = _traces_outside()
        # What a process of ours leaves behind becomes our child, so that it can be seen and ended.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def environment(self) -> dict[str, str]:
        """That of the shell, without what would lead the commands to another gpud."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GPUD_", "GPUCTL_", "NOTIFY_", "WATCHDOG_"))
        }
        return kept | {
            "PATH": f"{PROGRAMS}:{kept.get('PATH', os.defpath)}",
            "GPUCTL_ADDRESS": f"unix://{self.socket}",
            "TMPDIR": str(self.folder / "tmp"),
        }

    def show(self, command: str, *, refused_with: int = 0) -> None:
        """Run a command as a person types it, its output where a person sees it."""
        print_command(command)
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment(),
            timeout=COMMAND_LIMIT_SECONDS,
            check=False,
        )
        if done.returncode != refused_with:
            raise DemoFailed(
                f"`{command}` ended with exit code {done.returncode}, not {refused_with}"
            )

    def ask(self, command: str) -> Any:
        """The JSON that a command answers, for the demo's own checks."""
        done = subprocess.run(
            [*shlex.split(command), "-o", "json"],
            cwd=self.folder,
            env=self.environment(),
            timeout=COMMAND_LIMIT_SECONDS,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(f"`{command} -o json` ended with exit code {done.returncode}")
        return json.loads(done.stdout)

    def start_daemon(self, command: str) -> None:
        """Start gpud and wait until it says that it is ready, the way systemd is told."""
        print_command(f"{command} 2> gpud.log &")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self.runtime / "notify"))
            with (self.folder / "gpud.log").open("wb") as log:
                self._daemon = subprocess.Popen(
                    shlex.split(command),
                    cwd=self.folder,
                    env=self.environment() | {"NOTIFY_SOCKET": ready.getsockname()},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._await_ready(ready, self._daemon)

    def _await_ready(self, ready: socket.socket, daemon: subprocess.Popen[bytes]) -> None:
        ended = os.pidfd_open(daemon.pid)
        deadline = time.monotonic() + START_LIMIT_SECONDS
        try:
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([ready.fileno(), ended], [], [], left)
                if ready.fileno() in readable and b"READY=1" in ready.recv(4096).splitlines():
                    return
                if ended in readable:
                    raise DemoFailed(f"gpud ended with exit code {daemon.wait()} while starting")
        finally:
            os.close(ended)
        raise DemoFailed(f"gpud was not ready within {START_LIMIT_SECONDS:.0f} s")

    def stop_daemon(self) -> None:
        """Stop gpud as systemd does; afterwards nothing that it started may live."""
        daemon = self._daemon
        if daemon is None:
            raise DemoFailed("gpud was never started")
        print_command(f"kill {daemon.pid}")
        daemon.terminate()
        try:
            code = daemon.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"gpud did not stop within {STOP_LIMIT_SECONDS:.0f} s") from None
        if code:
            raise DemoFailed(f"gpud stopped with exit code {code}")
        _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=5)
        if alive:
            raise DemoFailed(f"still running: {', '.join(str(process) for process in alive)}")

    def clear(self, *, keep_folder: bool) -> None:
        """End whatever is left, gpud first, and remove what was written."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            try:
                self._daemon.wait(STOP_LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
        # Engines outlive gpud by design; this is the one place where they must not.
        left = psutil.Process().children(recursive=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            _, left = psutil.wait_procs(left, timeout=5)
        if self.runtime != self.folder:
            shutil.rmtree(self.runtime, ignore_errors=True)
        if not keep_folder:
            shutil.rmtree(self.folder)

    def check_traces(self) -> None:
        """Nothing of ours lies outside the project's folder."""
        new = sorted(str(path) for path in _traces_outside() - self._traces)
        if new:
            raise DemoFailed(f"left outside the project's folder: {', '.join(new)}")

    def log_tail(self) -> str:
        """The last lines of gpud's log."""
        log = self.folder / "gpud.log"
        return (
            "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
        )


def print_command(command: str) -> None:
    """As a shell shows it."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}$ {command}{plain}", flush=True)


def _traces_outside() -> set[Path]:
    """Files by the names of what the demo runs, where programs usually leave theirs."""
    home = Path(os.environ.get("HOME") or "/")
    places = [Path(tempfile.gettempdir()), Path("/run"), Path("/var/lib"), Path("/dev/shm")]
    places += [home, home / ".cache", home / ".config", home / ".local/share"]
    places += [Path(folder) for folder in (os.environ.get("XDG_RUNTIME_DIR"),) if folder]
    words = ("gpud", "gpuctl", "llama")
    return {
        path
        for place in places
        if os.access(place, os.R_OK | os.X_OK) and place.is_dir()
        for path in place.iterdir()
        if any(word in path.name.lower() for word in words)
    }
