"""Commands for `gpuctl run`, and what it did with the promise."""

from __future__ import annotations

import sys

from tests.fakes.daemon import FakeDaemon

# Tells that it runs, and then each signal that it gets; ends with 7 at SIGTERM. By os.write, for a
# handler may come in the middle of a print.
LISTENER = """
import os, signal, sys
def told(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
    if number == signal.SIGTERM:
        sys.exit(7)
for number in map(signal.Signals, (1, 2, 3, 10, 12, 15, 28)):
    signal.signal(number, told)
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
LISTEN = ("--", sys.executable, "-c", LISTENER)


def shell(script: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", script)


def released(daemon: FakeDaemon) -> list[str]:
    return [request.name for request in daemon.requests["Release"]]
