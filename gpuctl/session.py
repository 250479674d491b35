"""What one run of gpuctl was told, and what it works with."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gpuctl.access.choosing import chosen
from gpuctl.access.context import Context
from gpuctl.client import Client
from gpuctl.render import Output

DEFAULT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The global options."""

    address: str = ""
    context: str = ""
    all_nodes: bool = False
    output: str = "table"
    timeout: float = DEFAULT_TIMEOUT_SECONDS  # seconds, for each call
    verbose: bool = False
    # https://no-color.org: any non-empty value.
    no_color: bool = field(default_factory=lambda: bool(os.environ.get("NO_COLOR")))


class Session:
    """The settings as they are read, and the client and the output made from them when needed."""

    def __init__(
        self, now: Callable[[], float] = time.time, arguments: Sequence[str] = ()
    ) -> None:
        self.settings = Settings()
        # The words of the command line, for advice that repeats them.
        self.arguments = arguments
        # Seconds since the epoch, for ages and for `--since`.
        self.now = now

    def set(self, **changes: Any) -> None:
        """Take an option. Those after the command win over those before it."""
        self.settings = replace(self.settings, **changes)

    def at(self, context: Context, output: Output) -> Session:
        """The same command on a node of its own, whose results go elsewhere."""
        session = Session(self.now, self.arguments)
        session.settings = self.settings
        session.context, session.output = context, output
        return session

    @cached_property
    def context(self) -> Context:
        """The gpud that is spoken to."""
        return chosen(self.settings.address, self.settings.context)

    @cached_property
    def client(self) -> Client:
        """The connection to it."""
        return Client(self.context, self.settings.timeout)

    @cached_property
    def output(self) -> Output:
        """Where results go."""
        return Output(self.settings.output, color=self.colors(sys.stdout))

    def colors(self, stream: Any) -> bool:
        """Whether to use colour on a stream."""
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        return bool(stream.isatty()) and not self.settings.no_color and not dumb

    def owner(self, declared: str | None = None) -> str:
        """Whose the doing of a call is said to be; empty where gpud knows who calls.

        Only an admin may declare another.
        """
        if declared:
            return declared
        return "" if self.client.is_known else person()

    def close(self) -> None:
        """End the connection."""
        if "client" in self.__dict__:
            self.client.close()


def person() -> str:
    """user@host: whose a call's doing is where gpud cannot tell who calls."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # no entry in passwd, as in many containers
    return f"{user}@{socket.gethostname()}"


def request_id() -> str:
    """A fresh id, so that a call that is sent twice is done once."""
    import uuid

    return str(uuid.uuid4())
