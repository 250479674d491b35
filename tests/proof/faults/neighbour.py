"""A process with resident memory on a simulated card, as a user's program would have it."""

from __future__ import annotations

import os
import subprocess
import sys

# Of a kind that no other test simulates: a process counts on each simulated card of its name.
KIND = "rtx-3060"
CARD = f"SIM-{KIND}-0"
_PROGRAM = "held = b'x' * {size}; print('holds', flush=True); __import__('signal').pause()"


def hold(size: int, reservation: str) -> subprocess.Popen[bytes]:
    """A process that holds so many bytes of gpu0 in that promise; it is the caller's to end."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM.format(size=size)],
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": CARD,
            "GPUD_RESERVATION": reservation.removeprefix("reservations/"),
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"holds\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()
