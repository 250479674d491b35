"""Addresses as people write them, and the sockets that lie beside one another."""

from __future__ import annotations

import os

from gpuctl.failures import SYSTEM_SOCKET, usage

# Beside the socket of admins, as gpud's example configuration names them.
_ROLES = ("operator", "viewer")

# os.path all along: pathlib would be an import more for every command.
# ruff: noqa: PTH100, PTH110, PTH122


def default_socket() -> str:
    """Where gpud listens unless somebody says otherwise: the system's socket, or the user's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime:
        return f"{runtime}/gpud/gpud.sock"
    return SYSTEM_SOCKET


def usable(main: str) -> str:
    """The socket itself, or the first beside it that this user may open if not that one."""
    if not os.path.exists(main):
        return main
    return next((path for path in (main, *role_sockets(main)) if os.access(path, os.W_OK)), main)


def role_sockets(main: str) -> list[str]:
    """Where those of operators and viewers lie: gpud.operator.sock beside gpud.sock."""
    stem, suffix = os.path.splitext(main)
    return [f"{stem}.{role}{suffix}" for role in _ROLES]


def main_socket(path: str) -> str:
    """The socket of admins, of one beside it or itself."""
    stem, suffix = os.path.splitext(path)
    for role in _ROLES:
        stem = stem.removesuffix(f".{role}")
    return f"{stem}{suffix}"


def auth_socket(path: str) -> str:
    """Where the socket that mints tokens lies, of any of the others."""
    stem, suffix = os.path.splitext(main_socket(path))
    return f"{stem}.auth{suffix}"


def grpc_target(address: str) -> str:
    """`unix:///path` or `host:port` of an address as people write it, a plain path included.

    Raises Failure for anything else.
    """
    path = address.removeprefix("unix://").removeprefix("unix:")
    if path != address or address.startswith(("/", ".")):
        if not path:
            raise usage(f"{address!r} names no socket; write unix:///run/gpud/gpud.sock")
        return f"unix://{os.path.abspath(path)}"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise usage(
            f"{address!r} is no address; write unix:///path, /path or host:port (--address)"
        )
    return address


def socket_path(address: str) -> str:
    """The path of a Unix address."""
    return address.removeprefix("unix://")


def host_of(address: str) -> str:
    """The host of host:port, an IPv6 one without its brackets."""
    return address.rpartition(":")[0].strip("[]")
