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

from gpud.engines.command.program import Looks, ProgramRefused
from gpud.instances.tree.identity import kill_holders
from gpud.telemetry.alerts.sinks.sink import SinkFailed

_TAKEN_ALONG: Final = ("LANG", "LC_ALL", "TZ")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAID_BYTES: Final = 200
_PART_BYTES: Final = 64 * 1024
# By it all that the program started is found again.
TOKEN_NAME: Final = "GPUD_ALERT_TOKEN"  # noqa: S105 — the variable's name
# One that was killed ends at once, unless it is blocked in the kernel.
_END_SECONDS: Final = 10.0
_MOST_PASSES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, and for how long at most."""

    name: str
    argv: tuple[str, ...]
    timeout_seconds: float
    looks: Looks

    async def send(self, body: dict[str, Any]) -> None:
        """Run it; another exit code than 0 is a failure. Raises SinkFailed."""
        try:
            await self.looks.check(self.argv[0])
        except ProgramRefused as error:
            raise SinkFailed(sink=self.name, problem=error.problem) from error
        token = secrets.token_hex(16)
        try:
            child = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={**_environment(os.environ, body), TOKEN_NAME: token},
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SinkFailed(sink=self.name, problem=str(error)) from error
        try:
            async with asyncio.timeout(self.timeout_seconds):
                said = await _talk(child, msgspec.json.encode(body) + b"\n")
                code = await child.wait()
        except TimeoutError:
            problem = f"it did not end within {self.timeout_seconds:g} s, and was killed"
            raise SinkFailed(sink=self.name, problem=problem) from None
        finally:
            await _end(child, token)
        if code != 0:
            text = "".join(c if c.isprintable() else " " for c in said).strip()
            how = f"signal {-code}" if code < 0 else f"code {code}"
            raise SinkFailed(sink=self.name, problem=f"it ended with {how}: {text}".rstrip(": "))


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


async def _end(child: asyncio.subprocess.Process, token: str) -> None:
    """Kill what still runs of it: its group, and whoever left that but has its environment."""
    if child.returncode is None:  # else its number may be another's by now
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            for _ in range(_MOST_PASSES):
                if not await asyncio.to_thread(kill_holders, token, TOKEN_NAME):
                    break
            await child.wait()
