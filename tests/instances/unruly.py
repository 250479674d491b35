"""Programs that do not go quietly: run as `python unruly.py MODE [FILE]`; each tells "up" first.

Those that leave others behind write their pids into FILE, one a line.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(100)


def obey(_: str) -> None:
    while True:
        time.sleep(100)


def ignore_term(_: str) -> None:
    stay()


def new_session(path: str) -> None:
    """A child in a session of its own, which ignores SIGTERM."""
    if os.fork() == 0:
        os.setsid()
        note(path)
        stay()
    stay()


def double_fork(path: str) -> None:
    """A grandchild whose parent is gone."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(path)
            stay()
        os._exit(0)
    stay()


def clear_environment(path: str) -> None:
    """A double fork into a program that knows nothing of the instance."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(path)
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    stay()


def fork_loop(path: str) -> None:
    """One that goes on making children, each of which makes one."""
    note(path)
    for _ in range(500):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                stay()
            stay()
        time.sleep(0.002)
    stay()


def comet(path: str) -> None:
    """One that is never the same process for long: fork, new session, the parent exits."""
    note(path)
    if os.fork() == 0:
        while True:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
    stay()


def leave_behind(path: str) -> None:
    """The main process ends with 0 while a descendant lives on."""
    if os.fork() == 0:
        os.setsid()
        note(path)
        stay()
    while not os.path.exists(path):
        time.sleep(0.001)
    os._exit(0)


def flood(_: str) -> None:
    """More output than both files hold, its lines numbered."""
    line = "x" * 1000
    for number in range(12_000):
        os.write(1, f"{number} {line}\n".encode())


MODES = (
    obey, ignore_term, new_session, double_fork, clear_environment, fork_loop, comet,
    leave_behind, flood,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1] not in {"obey", "flood"}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before it is said to be up
    os.write(1, b"up\n")
    {mode.__name__: mode for mode in MODES}[sys.argv[1]](sys.argv[-1])
