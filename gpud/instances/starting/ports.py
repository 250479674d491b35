"""A port for an engine: free when it was chosen, and nobody else's of ours."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from gpud.instances.instance import Instance

LOOPBACK = "127.0.0.1"


def port_again(instance: Instance, roll: Iterable[Instance]) -> int:
    """The port that it had, so that who knows its endpoint finds it there; another if it is taken.

    An engine shares its port with the sockets of gpud's user, so that anybody who listens there
    now is looked for, not met.
    """
    others = [each for each in roll if each.id != instance.id]
    had = instance.port
    if had is None or had in {each.port for each in others if not each.ended} or is_taken(had):
        return free_port(others)
    return had


def is_taken(port: int) -> bool:
    """Whether somebody has it, a server or a connection of somebody's own."""
    with socket.socket() as listener:
        # What is left of closed connections is in nobody's way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


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
