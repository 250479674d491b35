"""The file that Prometheus' file_sd reads: the engines' endpoints, whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path


class TargetsFile:
    """Writes when something changed; a file that cannot be written is tried at each look again.

    `told` is given (type, reason) of an event: once when it cannot be written, once when it can.
    """

    def __init__(
        self, path: Path, targets: Callable[[], str], told: Callable[[str, str], None]
    ) -> None:
        self._path = path
        self._targets = targets
        self._told = told
        self._written = ""
        self._problem = ""

    async def run(self, looks: AsyncIterator[object]) -> None:
        """Look at each of these, until cancelled."""
        async for _ in looks:
            await self.look()

    async def look(self) -> None:
        """Write the file if its targets are others than it has."""
        targets = self._targets()
        if targets == self._written:
            return
        try:
            await asyncio.to_thread(self._write, targets)
        except OSError as error:
            self._say(error.strerror or str(error))
        else:
            self._written = targets
            self._say("")

    def _say(self, problem: str) -> None:
        if problem and not self._problem:
            reason = f"cannot write {self._path}: {problem.lower()}; Prometheus keeps what it has"
            self._told("discovery.unwritable", reason)
        elif self._problem and not problem:
            self._told("discovery.writable", f"{self._path} is written again")
        self._problem = problem

    def _write(self, targets: str) -> None:
        """In its folder under another name, then in place of the old one: nobody reads a half."""
        half = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with half.open("w") as file:
                file.write(f"{targets}\n")
                file.flush()
                os.fsync(file.fileno())
            half.chmod(0o644)
            half.replace(self._path)
        except OSError:
            half.unlink(missing_ok=True)
            raise
