"""What systemd is told over $NOTIFY_SOCKET; nothing where there is none."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


class Notifier:
    """sd_notify: one datagram per message. A lost one is no fault of ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract socket.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path

    def tell(self, message: str) -> None:
        """Send, never blocking."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        ):
            sender.sendto(message.encode(), self._address)
