"""Whether the port that an engine was told to listen on came to be the engine's alone.

Between the choice and the engine's bind anybody may take it, for most of the load of a large
model. llama-server lets other sockets of its user share its port, so that its bind does not even
fail: requests would then reach either of the two. So an engine that lost its port, or shares it,
is started with another one, and no endpoint is told on whose port somebody else listens.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpud.errors import EngineFailed
from gpud.instances.starting.ports import LOOPBACK, is_taken
from gpud.instances.tree.shim import children_of

# Each start of an engine takes its time: a port is lost once, hardly ever twice.
PORT_TRIES = 3
NETLINK_SECONDS = 1.0
_LISTENING = "0A"  # in the fourth column of /proc/net/tcp
# linux/netlink.h, linux/sock_diag.h, net/tcp_states.h
_SOCK_DIAG, _BY_FAMILY, _DUMP, _ERROR, _DONE, _TCP_LISTEN = 4, 20, 0x301, 2, 3, 10
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
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
    return any(_SAID.search(line) for line in lines) or is_taken(port)


def is_shared(port: int, root: int, proc: Path = Path("/proc")) -> bool:
    """Whether somebody listens there who is neither that process nor any below it.

    False where the kernel does not tell. Blocks for a millisecond, or a few.
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
    try:
        inodes = [inode for family in _FAMILIES for inode in _ask_kernel(port, family)]
    except OSError:  # built without it, or not for us
        return _read_table(port, proc)
    return {f"socket:[{inode}]" for inode in inodes}


def _ask_kernel(port: int, family: int) -> Iterator[int]:
    """Inodes of the sockets that listen there (sock_diag(7)). Raises OSError.

    Half a millisecond, where the table is written out whole with every connection that ever was.
    """
    place = struct.pack(">HH", port, 0) + bytes(44)
    asked = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN) + place
    head = struct.pack("=IHHII", 16 + len(asked), _BY_FAMILY, _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(NETLINK_SECONDS)
        kernel.send(head + asked)
        while True:
            answer = kernel.recv(65536)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, 16)[0], "sock_diag")
                if struct.unpack_from(">H", answer, 20)[0] == port:
                    yield struct.unpack_from("=I", answer, 84)[0]
                answer = answer[(length + 3) & ~3 :]


def _read_table(port: int, proc: Path) -> set[str]:
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
