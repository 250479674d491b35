"""A port for an engine: free when it was chosen, and nobody else's of ours."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from gpud.instances.instance import Instance

LOOPBACK = "127.0.0.1"


def free_port(roll: Iterable[Instance]) -> int:
    """A port that was free a moment ago; another process may still be faster than its engine.

    Never one that another instance of the roll is about to listen on: engines share their ports
    with other sockets of gpud's user, so two on one port would not fail, but mix their requests.
    """
    taken = {each.port for each in roll if not each.ended}
    while True:
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            port = int(listener.getsockname()[1])
        if port not in taken:
            return port
