"""Pure: an address and how to prove there who calls."""

from __future__ import annotations

from typing import NamedTuple


# A NamedTuple, for to make a dataclass would be 2 ms of every command.
class Context(NamedTuple):
    """One gpud, and what is shown to it. The files are absolute paths; empty: none.

    `name` is empty for an address that was given without one. With `ca` it is called over TLS.
    """

    address: str  # unix:///path or host:port
    name: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    token_file: str = ""
    server_name: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether it is a socket of this host."""
        return self.address.startswith("unix://")

    @property
    def uses_tls(self) -> bool:
        """Whether the server proves itself, and nobody on the way can read what is said."""
        return bool(self.ca)

    def settings(self) -> dict[str, str]:
        """What was said of it, its name aside."""
        return {key: value for key, value in self._asdict().items() if key != "name" and value}
