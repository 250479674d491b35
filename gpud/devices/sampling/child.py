"""One sampling process as the daemon sees it: started, listened to, abandoned, reaped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

import gpud
from gpud.devices.sampling.frames import AnyFrame, FrameParser, Orders
from gpud.devices.sampling.reader import Mark

log = structlog.get_logger()

# Called on the event loop with the process that a frame came from.
Receive = Callable[["Child", AnyFrame], None]

MODULE = "gpud.devices.sampling.helper"
READ_BYTES = 256 * 1024


class Child:
    """A running sampling process; frames go to `receive` as they arrive, on the event loop.

    Nothing here blocks on the process: it may hang in the kernel, where not even SIGKILL ends it.
    """

    def __init__(self, orders: Orders, receive: Receive) -> None:
        """Start it. Raises OSError when it cannot be."""
        self._receive = receive
        self._parser = FrameParser()
        self._loop = asyncio.get_running_loop()
        self._mark = Mark(os.memfd_create("gpud-sampler-asks"))
        self._process = subprocess.Popen(
            # -P: the working directory is anybody's, its files are no modules of ours.
            [sys.executable, "-P", "-m", MODULE, str(self._mark.descriptor)],
            pass_fds=(self._mark.descriptor,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=child_environment(os.environ),
            # Ctrl-C is for the daemon, which then ends this process itself.
            process_group=0,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("no pipes")
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        # Neither end waits for the other: what the pipe does not take at once is kept here.
        self._unwritten = bytearray()
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._write(msgspec.json.encode(orders))
        self.ended = asyncio.Event()
        # What it is doing (Frame.then), None until it has said so, and since when (loop time).
        self.busy_with: str | None = None
        self.busy_since = self._loop.time()
        # Whom it was asking as it ended: a UUID, or "".
        self.asked_last = ""
        self._loop.add_reader(self._stdout, self._read)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def command(self, line: str) -> None:
        """Send a command line; to one that is gone it does not matter."""
        self._write(line.encode())

    def abandon(self) -> None:
        """Send SIGKILL and listen no more. It is gone when `is_gone` says so, maybe never."""
        if self._stdout.closed:
            return
        self._loop.remove_reader(self._stdout)
        self._loop.remove_writer(self._stdin)
        self._process.kill()
        self._stdout.close()
        self._stdin.close()
        self.asked_last = self._mark.read()
        os.close(self._mark.descriptor)
        self.ended.set()

    def is_gone(self) -> bool:
        """Whether it has ended, reaping it if so."""
        return self._process.poll() is not None

    def exit_text(self) -> str:
        """How it ended, for people."""
        status = self._process.poll()
        if status is None:
            return "still ending"
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    def _write(self, line: bytes) -> None:
        if self._stdin.closed:
            return
        self._unwritten += line + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            del self._unwritten[: os.write(self._stdin.fileno(), self._unwritten)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unwritten.clear()
        if self._unwritten:
            self._loop.add_writer(self._stdin, self._flush)
        else:
            self._loop.remove_writer(self._stdin)

    def _read(self) -> None:
        try:
            received = os.read(self._stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        if not received:
            self.abandon()
            return
        try:
            for frame in self._parser.feed(received):
                self._take(frame)
        except (ValueError, msgspec.MsgspecError):
            self.abandon()

    def _take(self, frame: AnyFrame) -> None:
        self.busy_since = self._loop.time()
        if frame.then is not None:
            self.busy_with = frame.then
        try:
            self._receive(self, frame)
        except Exception:
            # A mistake of whoever is told of it is none of this process, which goes on.
            log.exception("sampling.bug")


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without what concerns gRPC, and with gpud on the module path."""
    kept = {name: value for name, value in environment.items() if not name.startswith("GRPC_")}
    source = str(Path(gpud.__file__).parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (source, kept.get("PYTHONPATH"))))
    return kept
