"""Forced reuse of pids against what proves an identity: a program for a PID namespace of its own.

    unshare -p -f --mount-proc python -m tests.enforcement.reuse COUNT

In each round a process dies and another gets its pid, as a rule within the same clock tick. The
other has done nothing: whoever signals it has taken it for the first. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import structlog

from gpud.devices.processes import read_stat
from gpud.devices.snapshot import DeviceKind, ProcessUse
from gpud.enforcement.patrol import TRESPASS
from gpud.instances.tree.identity import TOKEN_NAME, identify, open_proved
from tests.enforcement.office import Office, process
from tests.enforcement.test_patrol import Beat

FIRST_PID = 5000
TOKEN = "token-of-the-first"
BOOT_ID = "boot-1"


class Nursery:
    """Has processes born under the pids that are asked for; they are no children of ours."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin"} | environment,
        )

    def bear(self, pid: int) -> None:
        """Returns once a process of that pid waits there."""
        self._ask(f"bear {pid}")

    def bury(self, pid: int) -> None:
        """SIGKILL, and gone."""
        self._ask(f"bury {pid}")

    def is_alive(self, pid: int) -> bool:
        """Whether the one that was born last under this pid still lives."""
        return self._ask(f"look {pid}") == "alive"

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _ask(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{line}\n".encode())
        stdin.flush()
        answer = stdout.readline().decode().strip()
        assert answer in {"done", "gone", "alive", "dead"}, answer
        return answer


class Rounds:
    """The rounds, and what came of them."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.beat = Beat(office, TRESPASS)
        self.counts: Counter[str] = Counter()

    def patrol(self, at: int, pid: int, homes: Nursery) -> None:
        """A trespasser dies at one of the moments that matter, and an innocent gets its pid."""
        homes.bear(pid)
        listed = self._listed(pid)
        moment = at % 3
        if moment == 0:  # between the list and the opening
            self._replace(pid, listed, homes)
            self.beat.see(gpu0=(listed,))
        elif moment == 1:  # between the list that would prove it and the patrol's look at that
            self.beat.see(gpu0=(listed,))
            proving = self.office.show(gpu0=(listed,))
            self._replace(pid, listed, homes)
            self.beat.patrol.observe(proving)
        else:  # before that list, which takes the one for the other
            self.beat.see(gpu0=(listed,))
            self._replace(pid, listed, homes)
            self.beat.see(gpu0=(listed,))
        self.beat.see(gpu0=())
        self._judge(pid, homes, "patrol")

    def identity(self, pid: int, homes: Nursery) -> None:
        """An instance's process dies, and one of the very same environment gets its pid."""
        homes.bear(pid)
        pidfd = os.pidfd_open(pid)
        meant = identify(pid, pidfd, BOOT_ID, TOKEN)
        self._replace(pid, self._listed(pid), homes)
        found = open_proved(meant)
        if found is not None:
            signal.pidfd_send_signal(found, signal.SIGTERM)
            select.select([found], [], [], 1)
            os.close(found)
        os.close(pidfd)
        self._judge(pid, homes, "identity")

    def guilty(self, pid: int, homes: Nursery) -> None:
        """The same without a reuse: this one must be ended, or the rounds prove nothing."""
        homes.bear(pid)
        pidfd = os.pidfd_open(pid)
        self.beat.see(gpu0=(self._listed(pid),))
        self.beat.see(gpu0=(self._listed(pid),))
        ended = bool(select.select([pidfd], [], [], 60)[0])
        os.close(pidfd)
        self.counts["guilty"] += 1
        self.counts["guilty ended"] += ended
        homes.bury(pid)
        self.beat.see(gpu0=())

    def _listed(self, pid: int) -> ProcessUse:
        return replace(process(pid), start_time=read_stat(pid).start_time)

    def _replace(self, pid: int, listed: ProcessUse, homes: Nursery) -> None:
        homes.bury(pid)
        homes.bear(pid)
        self.counts["reuses"] += 1
        self.counts["within one tick"] += read_stat(pid).start_time == listed.start_time

    def _judge(self, pid: int, homes: Nursery, who: str) -> None:
        self.counts[who] += 1
        self.counts[f"{who} wrong"] += not homes.is_alive(pid)
        homes.bury(pid)


async def run(count: int) -> Counter[str]:
    """So many reuses against each of the two."""
    with tempfile.TemporaryDirectory() as folder:
        office = Office(Path(folder))
        for alias in office.samples:
            office.become(alias, DeviceKind.SIMULATED)
        await office.reserve("its", exclusive=True)
        rounds = Rounds(office)
        plain, instance = Nursery(), Nursery(**{TOKEN_NAME: TOKEN})
        for at in range(count):
            rounds.patrol(at, FIRST_PID + at, plain)
            rounds.identity(FIRST_PID + count + at, instance)
            if at % 10 == 0:
                rounds.guilty(FIRST_PID + 2 * count + at, plain)
                await office.events()
        plain.close()
        instance.close()
        office.close()
    return rounds.counts


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    print(json.dumps(asyncio.run(run(int(sys.argv[1])))))
