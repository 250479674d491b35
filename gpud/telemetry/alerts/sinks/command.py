"""A sink that is a program: run for each notice with JSON on its standard input.

It runs with gpud's rights and gpud's user, so it is named in a file that only root or gpud's user
may write, and looked at before each start. Nothing of it is left afterwards.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gpud.clock import Clock
from gpud.engines.command.program import Looks, ProgramRefused
from gpud.instances.tree.launcher import sweep
from gpud.telemetry.alerts.sinks.sink import SinkFailed

_TAKEN_ALONG: Final = ("LANG", "LC_ALL", "TZ")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAID_BYTES: Final = 200
_PART_BYTES: Final = 64 * 1024
# By it all that the program started is found again.
TOKEN_NAME: Final = "GPUD_ALERT_TOKEN"  # noqa: S105 — the variable's name
# One that was killed ends at once, unless it is blocked in the kernel.
_END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, and for how long at most."""

    name: str
    argv: tuple[str, ...]
    timeout_seconds: float
    looks: Looks
    clock: Clock

    async def send(self, body: dict[str, Any]) -> None:
        """Run it; another exit code than 0 is a failure. Raises SinkFailed."""
        try:
            await self.looks.check(self.argv[0])
        except ProgramRefused as error:
            raise SinkFailed(sink=self.name, problem=error.problem) from error
        token = secrets.token_hex(16)
        child: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                child = await self._started(body, token)
                said = await _talk(child, msgspec.json.encode(body) + b"\n")
                code = await child.wait()
        except TimeoutError:
            problem = f"it did not end within {self.timeout_seconds:g} s, and was killed"
            raise SinkFailed(sink=self.name, problem=problem) from None
        except (OSError, ValueError) as error:
            raise SinkFailed(sink=self.name, problem=str(error)) from error
        finally:
            if child is not None:
                await _end(child, token, self.clock)
        if code != 0:
            text = "".join(c if c.isprintable() else " " for c in said).strip()
            how = f"signal {-code}" if code < 0 else f"code {code}"
            raise SinkFailed(sink=self.name, problem=f"it ended with {how}: {text}".rstrip(": "))

    async def _started(self, body: dict[str, Any], token: str) -> asyncio.subprocess.Process:
        """The program, running. Who is cancelled meanwhile leaves none behind.

        asyncio itself would then wait until the last holder of its pipes has ended.
        """
        starting = asyncio.ensure_future(self._start(body, token))  # noqa: TID251 — awaited below
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(OSError, ValueError):  # it could not be started
                await _end(await starting, token, self.clock)
            raise

    async def _start(self, body: dict[str, Any], token: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**_environment(os.environ, body), TOKEN_NAME: token},
            cwd="/",
            start_new_session=True,
        )


def _environment(own: Mapping[str, str], body: dict[str, Any]) -> dict[str, str]:
    """An allow-list: nothing that gpud was started with goes along by chance."""
    alert = body["alert"]
    return {
        "PATH": _PATH,
        **{name: own[name] for name in _TAKEN_ALONG if name in own},
        "GPUD_ALERT_TOLD": str(body["told"]),
        "GPUD_ALERT_RULE": str(alert["rule"]),
        "GPUD_ALERT_SEVERITY": str(alert["severity"]),
    }


async def _talk(child: asyncio.subprocess.Process, text: bytes) -> str:
    """Hand it the text, read what it complains of to the end; the beginning of that."""
    assert child.stdin is not None  # noqa: S101 — pipes were asked for
    assert child.stderr is not None  # noqa: S101
    with suppress(BrokenPipeError, ConnectionResetError):  # it need not read it
        child.stdin.write(text)
        await child.stdin.drain()
    child.stdin.close()
    said = b""
    while part := await child.stderr.read(_PART_BYTES):
        said = (said + part)[:_SAID_BYTES]
    return said.decode(errors="replace")


async def _end(child: asyncio.subprocess.Process, token: str, clock: Clock) -> None:
    """Kill what still runs of it: its group, and whoever left that but has its environment."""
    if child.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await sweep(token, clock, TOKEN_NAME)
            await child.wait()
