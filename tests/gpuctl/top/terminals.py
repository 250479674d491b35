"""`gpuctl top` in real terminals: tmux, as a person has it, and a bare pty, byte by byte."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gpuctl.test_terminal import PROGRAM

# Only to end a hang.
PATIENCE_SECONDS = 50.0
SIZE = (80, 24)


def environment(address: str, **more: str) -> dict[str, str]:
    """As a person has it who came by ssh."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.getcwd(),
        "GPUCTL_ADDRESS": address,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        # As some shells export them, and wrong once the window is resized.
        "COLUMNS": "80",
        "LINES": "24",
        **more,
    }


@dataclass(kw_only=True)
class Tmux:
    """A server of its own with one window; what the window is sent wakes who waits."""

    program: Path
    directory: Path
    _output: int = -1

    def __call__(self, *arguments: str) -> str:
        command = [str(self.program), "-f", "/dev/null", "-S", str(self.directory / "tmux")]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def start(self, command: str, env: dict[str, str]) -> None:
        """The window, with a shell command in it."""
        columns, rows = SIZE
        settings = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        size = ("-x", str(columns), "-y", str(rows))
        fifo = self.directory / "output"
        os.mkfifo(fifo)
        self._output = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        # It begins once its output is led away.
        begins = f"read _; {command}"
        self("new-session", "-d", *size, *settings, "sh", "-c", begins)
        self("set-option", "-g", "remain-on-exit", "on")
        self("pipe-pane", "-o", f"cat > '{fifo}'")
        self("send-keys", "Enter")

    @property
    def screen(self) -> str:
        return self("capture-pane", "-p")

    def flag(self, name: str) -> str:
        return self("display-message", "-p", f"#{{{name}}}").strip()

    def until(self, holds: Callable[[str], object]) -> str:
        """The first screen of which it holds; looked at whenever something was written."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while not holds(screen := self.screen):
            left = limit - time.monotonic()
            ready, _, _ = select.select([self._output], [], [], max(0.0, left))
            assert ready, f"it never held; the screen:\n{screen}"
            os.read(self._output, 1 << 20)
        return screen

    def close(self) -> None:
        subprocess.run(
            [str(self.program), "-S", str(self.directory / "tmux"), "kill-server"],
            capture_output=True,
            check=False,
            timeout=30,
        )
        if self._output >= 0:
            os.close(self._output)


@dataclass(kw_only=True)
class Pty:
    """The program on a pty, and all that it wrote."""

    process: subprocess.Popen[bytes]
    reader: int
    written: bytes = b""

    def until(self, holds: Callable[[bytes], object]) -> bytes:
        """All of it, once it holds."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while not holds(self.written):
            left = limit - time.monotonic()
            ready, _, _ = select.select([self.reader], [], [], max(0.0, left))
            assert ready, f"it never held; what was written: {self.written[-3000:]!r}"
            try:
                self.written += os.read(self.reader, 1 << 16)
            except OSError as error:  # EIO: it has ended
                raise AssertionError(f"it ended: {self.written[-3000:]!r}") from error
        return self.written

    def press(self, keys: bytes) -> None:
        os.write(self.reader, keys)

    def ended(self) -> int:
        """Its exit code, once it has written the last of it."""
        while select.select([self.reader], [], [], PATIENCE_SECONDS)[0]:
            try:
                self.written += os.read(self.reader, 1 << 16)
            except OSError:
                break
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def on_a_pty(address: str, *arguments: str, **more: str) -> Iterator[Pty]:
    """`gpuctl top` there, at 80×24."""
    reader, terminal = pty.openpty()
    columns, rows = SIZE
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, "top", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(address, **more),
    )
    os.close(terminal)
    try:
        yield Pty(process=process, reader=reader)
    finally:
        process.kill()
        process.wait()
        os.close(reader)
