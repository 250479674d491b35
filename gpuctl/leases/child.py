"""The command that runs inside a promise: found, started, signalled, waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpuctl.failures import Failure
from gpuctl.leases.signals import Mask
from gpuctl.leases.streams import Inbox
from gpuctl.leases.tree import Tree, start_time

# As a shell tells of them.
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded:
    """The command ended. `code`: as a shell tells it, 128 + n for signal n."""

    code: int


def find(program: str) -> None:
    """Raises Failure, before anything is promised, for what cannot be started."""
    if shutil.which(program) is not None:
        return
    there = os.path.isdir(program) or shutil.which(program, mode=os.F_OK)  # noqa: PTH112
    raise _not_executable(program, "it is no executable file") if there else _not_found(program)


class Child:
    """A process in gpuctl's own process group, so that keys on the terminal reach it."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], inbox: Inbox, mask: Mask
    ) -> None:
        """Start it. Raises Failure where that is refused."""
        with mask.lifted():
            self._process = _started(words, {**os.environ, **environment})
        self.pid = self._process.pid
        self.tree = self._held()
        # Before anybody waits for it, its pid cannot have come to mean another.
        self.start_time = start_time(self.pid)
        self._inbox = inbox
        threading.Thread(target=self._wait, daemon=True).start()

    def _held(self) -> Tree:
        try:
            return Tree(self.pid)
        except OSError as error:
            # Nothing runs that could not be signalled.
            self._process.kill()
            self._process.wait()
            raise Failure(message=f"cannot get hold of process {self.pid}: {error}") from error

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    def _wait(self) -> None:
        code = self._process.wait()
        self._inbox.put(ChildEnded(code=code if code >= 0 else EXIT_SIGNAL_BASE - code))


def _started(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(list(words), env=dict(environment))
    except FileNotFoundError as error:
        # Of a script: the program that its first line names.
        raise _not_found(words[0]) from error
    except OSError as error:
        raise _not_executable(words[0], (error.strerror or str(error)).lower()) from error


def _not_found(program: str) -> Failure:
    return Failure(
        message=f"cannot run {program!r}: there is no such program, or no interpreter for it",
        exit_code=EXIT_NOT_FOUND,
    )


def _not_executable(program: str, why: str) -> Failure:
    return Failure(message=f"cannot run {program!r}: {why}", exit_code=EXIT_NOT_EXECUTABLE)
