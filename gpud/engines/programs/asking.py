"""What an engine's program prints when it is asked: bounded in time and in bytes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# A program that was killed ends at once, unless it is blocked in the kernel.
END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How it is asked. `environment` is whole; `cwd` None: where the daemon is."""

    environment: Mapping[str, str]
    limit_seconds: float
    limit_bytes: int
    cwd: Path | None = None
    with_stderr: bool = False


async def ask(argv: Sequence[str], asking: Asking) -> str:
    """What it prints until it ends, or until the limit of bytes: the rest is of no interest.

    Nothing of it is left afterwards. Raises OSError where it cannot be executed, TimeoutError.
    """
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if asking.with_stderr else asyncio.subprocess.DEVNULL,
        env=dict(asking.environment),
        cwd=asking.cwd,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(asking.limit_seconds):
            return await _read_bounded(child, asking.limit_bytes)
    finally:
        await _end(child)


async def _read_bounded(child: asyncio.subprocess.Process, limit_bytes: int) -> str:
    assert child.stdout is not None  # noqa: S101 — a pipe was asked for
    text = b""
    while part := await child.stdout.read(64 * 1024):
        text += part
        if len(text) > limit_bytes:
            return text.decode(errors="replace")
    await child.wait()
    return text.decode(errors="replace")


async def _end(child: asyncio.subprocess.Process) -> None:
    """Kill what still runs: the program, and what it may have started that holds the pipe."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        # communicate rather than wait: with output left in the pipe, wait would never return.
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await child.communicate()
