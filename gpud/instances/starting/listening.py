"""Whether the port that an engine was told to listen on came to be the engine's alone.

Between the choice and the engine's bind anybody may take it, for most of the load of a large
model. llama-server lets other sockets of its user share its port, so that its bind does not even
fail: requests would then reach either of the two. So an engine that lost its port, or shares it,
is started with another one, and no endpoint is told on whose port somebody else listens.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpud.errors import EngineFailed
from gpud.instances.starting.ports import LOOPBACK
from gpud.instances.tree.shim import children_of

# Each start of an engine takes its time: a port is lost once, hardly ever twice.
PORT_TRIES = 3
_LISTENING = "0A"  # in the fourth column of /proc/net/tcp
_SAID = re.compile(r"couldn't bind|address already in use|EADDRINUSE", re.IGNORECASE)


@dataclass(kw_only=True, eq=False)
class PortTaken(EngineFailed):
    """Another process listens where the engine was to."""

    reason = "PORT_TAKEN"

    port: int

    @property
    def summary(self) -> str:
        """Which port."""
        return (
            f"cannot bring up {self.instance}: another process has taken port {self.port} of "
            f"{LOOPBACK} that its engine was given, as it did with {PORT_TRIES - 1} ports before; "
            "`ss -ltnp` shows who listens"
        )


def was_lost(port: int, lines: tuple[str, ...]) -> bool:
    """Whether an engine that has ended could not have its port: it said so, or another has it."""
    return any(_SAID.search(line) for line in lines) or _is_taken(port)


def _is_taken(port: int) -> bool:
    with socket.socket() as listener:
        # What is left of closed connections is in nobody's way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def is_shared(port: int, root: int, proc: Path = Path("/proc")) -> bool:
    """Whether somebody listens there who is neither that process nor any below it.

    False where the kernel does not tell. Blocks for a read of the connection table.
    """
    listening = _listeners(port, proc)
    try:
        for pid in _tree(root):
            if not listening:
                break
            listening -= _sockets(pid, proc)
    except PermissionError:
        return False  # whose sockets they are is hidden from us
    return bool(listening)


def _listeners(port: int, proc: Path) -> set[str]:
    """The sockets that listen on a port, as links in /proc/PID/fd name them."""
    found = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError), (proc / "self/net" / name).open() as table:
            for line in table:
                words = line.split()
                if words[3] == _LISTENING and words[1].endswith(f":{port:04X}"):
                    found.add(f"socket:[{words[9]}]")
    return found


def _sockets(pid: int, proc: Path) -> set[str]:
    """What a process has open, as links. Raises PermissionError where that is hidden."""
    found: set[str] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (proc / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.add(str(descriptor.readlink()))
    return found


def _tree(root: int) -> Iterator[int]:
    below = [root]
    while below:
        pid = below.pop()
        yield pid
        below += children_of(pid)
