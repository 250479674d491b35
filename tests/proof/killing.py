"""A daemon that is killed again and again on one state directory, and checked each time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tests.proof.operations import Client, Operation
from tests.proof.witness import Witness, quiet
from tests.running import Gpud, calling

DEATH_SECONDS = 60.0
FAULTS = (grpc.aio.AioRpcError, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operation, the passing of a point that ends it, and the point that ends the recovery."""

    operation: type[Operation]
    point: str = ""
    number: int = 1
    second: str = ""

    def __str__(self) -> str:
        first = f"{self.operation.__name__} at {self.point or 'rest'}:{self.number}"
        return f"{first}, then at {self.second}" if self.second else first


@dataclass(kw_only=True)
class Chain:
    """Cases one after another: each start is the recovery from the kill before it."""

    gpud: Gpud
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    # Cases whose operation came to its end before the point was passed so often.
    missed: list[Case] = field(default_factory=list)

    @property
    def _armed(self) -> Path:
        return self.gpud.directory / "armed"

    async def run(self, cases: list[Case]) -> None:
        witness = Witness(gpud=self.gpud)
        open_: tuple[Case, Operation, bool] | None = None
        for case in cases:
            self._set(case.point, case.number)
            await asyncio.to_thread(self.gpud.start)
            async with calling(self.gpud) as api:
                client = Client(api=api, witness=witness)
                await self._settle(client, open_)
                operation = case.operation(case.point, case.number)
                try:
                    await operation.prepare(client)
                    await quiet(api)
                except FAULTS as error:
                    self.wrong.append(f"{case}: not prepared: {told(error)}")
                    open_ = None
                    await asyncio.to_thread(self.gpud.kill)
                    continue
                answered = await self._killed(case, operation, client)
            if case.second:
                await self._kill_at_start(case)
            open_ = (case, operation, answered)
        self._set("", 1)
        await asyncio.to_thread(self.gpud.start)
        async with calling(self.gpud) as api:
            await self._settle(Client(api=api, witness=witness), open_)
        await asyncio.to_thread(self.gpud.stop)

    async def _settle(self, client: Client, open_: tuple[Case, Operation, bool] | None) -> None:
        if open_ is None:
            return
        case, operation, answered = open_
        try:
            await operation.settle(client, answered=answered)
            await client.witness.check(client.api)
        except FAULTS as error:
            client.witness.wrong.append(f"not settled: {told(error)}")
        self.wrong += [f"{case}: {problem}" for problem in client.witness.wrong]
        client.witness.wrong.clear()

    async def _killed(self, case: Case, operation: Operation, client: Client) -> bool:
        """Run it until the daemon is dead; whether it was answered before."""
        if not case.point:
            await asyncio.to_thread(self.gpud.kill)
            self.kills += 1
            return False
        self._armed.touch()
        try:
            await operation.run(client)
            answered = True
        except grpc.aio.AioRpcError as error:
            answered = False
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self.wrong.append(f"{case}: {error.code()}: {error.details()}")
        # What is answered may be followed by the passing that kills.
        await self._await_death(case, DEATH_SECONDS)
        return answered

    async def _await_death(self, case: Case, limit_seconds: float) -> None:
        process = self.gpud.process
        assert process is not None
        try:
            await asyncio.to_thread(process.wait, limit_seconds)
        except subprocess.TimeoutExpired:
            self.missed.append(case)
            await asyncio.to_thread(self.gpud.kill)
        self.kills += 1
        self._armed.unlink(missing_ok=True)

    async def _kill_at_start(self, case: Case) -> None:
        """The recovery is killed as well, before anybody was served."""
        self._set(case.second, 1)
        self._armed.touch()
        with self.gpud.started():
            await self._await_death(case, DEATH_SECONDS)

    def _set(self, point: str, number: int) -> None:
        self._armed.unlink(missing_ok=True)
        self.gpud.environment = {
            "GPUD_FAILPOINT": f"{point}:{number}=kill" if point else "",
            "GPUD_FAILPOINT_ARMED": os.fspath(self._armed),
            "GPUD_POLICY__PREEMPTION": "true",
            "GPUD_POLICY__PREEMPTION_GRACE": "200ms",
            "GPUD_POLICY__PREEMPTION_MIN_TENURE": "0s",
        }


def told(error: BaseException) -> str:
    """An error and where it came from."""
    return "".join(traceback.format_exception(error)[-3:])
