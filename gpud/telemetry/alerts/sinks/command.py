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
from typing import Any, Final, cast

import msgspec

from gpud.clock import Clock
from gpud.engines.command.program import Looks, ProgramRefused
from gpud.instances.tree.launcher import sweep
from gpud.telemetry.alerts.sinks.sink import SinkFailed

_TAKEN_ALONG: Final = ("LANG", "LC_ALL", "TZ")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAID_BYTES: Final = 200
# By it all that the program started is found again.
TOKEN_NAME: Final = "GPUD_ALERT_TOKEN"  # noqa: S105 — the variable's name
# One that was killed ends at once, unless it is blocked in the kernel.
_END_SECONDS: Final = 10.0
# All that is found again holds its stderr no more by then: for what it said to be read.
_SAID_SECONDS: Final = 1.0


class _Run(asyncio.SubprocessProtocol):
    """One run: what it is told, how it ends, and the beginning of what it complains of.

    asyncio's own streams tell of the end only once nobody holds the pipes any more; what a program
    leaves running may hold them for long.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.said = b""
        self.ended, self.silent = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It runs."""
        self.transport = cast("asyncio.SubprocessTransport", transport)
        stdin = cast("asyncio.WriteTransport", self.transport.get_pipe_transport(0))
        stdin.write(self._text)  # it need not read it
        stdin.write_eof()

    def pipe_data_received(self, _fd: int, data: bytes) -> None:
        """Of its stderr."""
        self.said = (self.said + data)[:_SAID_BYTES]

    def process_exited(self) -> None:
        """The program itself has ended."""
        self.ended.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """And nobody holds its pipes."""
        self.silent.set()

    async def end(self, token: str, clock: Clock) -> None:
        """Kill what still runs: its group, and whoever left that but has its environment."""
        if self.transport.get_returncode() is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.transport.get_pid(), signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await sweep(token, clock, TOKEN_NAME)
                await self.ended.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SAID_SECONDS):
                await self.silent.wait()
        self.transport.close()

    def problem(self) -> str | None:
        """Why it has not done its work; None: it has."""
        code = self.transport.get_returncode()
        if code == 0:
            return None
        text = "".join(c if c.isprintable() else " " for c in self.said.decode(errors="replace"))
        how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        return f"it ended with {how}: {text.strip()}".rstrip(": ")


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
        run: _Run | None = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                run = await self._started(body, token)
                await run.ended.wait()
        except TimeoutError:
            problem = f"it did not end within {self.timeout_seconds:g} s, and was killed"
            raise SinkFailed(sink=self.name, problem=problem) from None
        except (OSError, ValueError) as error:
            raise SinkFailed(sink=self.name, problem=str(error)) from error
        finally:
            if run is not None:
                await run.end(token, self.clock)
        if (complaint := run.problem()) is not None:
            raise SinkFailed(sink=self.name, problem=complaint)

    async def _started(self, body: dict[str, Any], token: str) -> _Run:
        """The program, running. Who is cancelled meanwhile leaves none behind.

        asyncio itself would then wait until the last holder of its pipes has ended.
        """
        starting = asyncio.ensure_future(self._start(body, token))  # noqa: TID251 — awaited below
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(OSError, ValueError):  # it could not be started
                await (await starting).end(token, self.clock)
            raise

    async def _start(self, body: dict[str, Any], token: str) -> _Run:
        text = msgspec.json.encode(body) + b"\n"
        _, run = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Run(text),
            *self.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**_environment(os.environ, body), TOKEN_NAME: token},
            cwd="/",
            start_new_session=True,
        )
        return run


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
