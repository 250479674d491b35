"""An engine's port shared with gpud, where the engine itself does not see to that.

The kernel lets a second socket listen on a port only if each socket on it, those of accepted
connections included, has SO_REUSEPORT. So it is set from outside, on a copy of the engine's own
socket (pidfd_getfd(2), Linux 5.6), before anybody has connected.
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
SYSCALL_PIDFD_GETFD: Final = 438  # the same on every architecture


class Sharing:
    """Of one engine, by the pid of its main process and its port."""

    def __init__(self, pid: int | None, port: int | None) -> None:
        self._pid = pid
        self._port = port
        self._is_done = pid is None or port is None

    def look(self) -> None:
        """Share the port if the engine has it by now; some 0.1 ms, nothing once it is done.

        Where the kernel does not allow it (ptrace(2), "Ptrace access mode checking"), the port
        stays the engine's alone, which is told when it is to be guarded.
        """
        if self._is_done or self._pid is None:
            return
        with suppress(OSError):
            pidfd = os.pidfd_open(self._pid)
            try:
                self._is_done = any(self._share(pidfd, number) for number in self._sockets())
            finally:
                os.close(pidfd)

    def _sockets(self) -> list[int]:
        found = []
        for each in Path(f"/proc/{self._pid}/fd").iterdir():
            with suppress(OSError):
                if str(each.readlink()).startswith("socket:"):
                    found.append(int(each.name))
        return found

    def _share(self, pidfd: int, number: int) -> bool:
        """Whether this was the socket of the port. Raises OSError."""
        copy = ctypes.CDLL(None, use_errno=True).syscall(SYSCALL_PIDFD_GETFD, pidfd, number, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        with socket.socket(fileno=copy) as engine_s:
            if engine_s.family != socket.AF_INET or engine_s.type != socket.SOCK_STREAM:
                return False
            if engine_s.getsockname() != (LOOPBACK, self._port):
                return False
            engine_s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return True
