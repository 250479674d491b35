"""The auth socket: whoever connects is told a token with the name that the kernel knows it by.

gRPC does not show a handler the peer's uid; SO_PEERCRED here does. The token that it gets is sent
with each call over a Unix socket, whose file's mode is the right; the token is the name.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import socket
import struct
from pathlib import Path

import msgspec
import structlog

from gpud.access.tokens import MINTED_SECONDS, Minted, mint
from gpud.clock import Clock

log = structlog.get_logger()

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: ucred of unix(7)
_MAX_PATH_BYTES = 107


def auth_path(main: Path) -> Path | None:
    """Where the auth socket lies: gpud.sock → gpud.auth.sock; None where the name is too long."""
    beside = main.with_name(f"{main.stem}.auth{main.suffix}")
    return beside if len(os.fsencode(beside)) <= _MAX_PATH_BYTES else None


class Mint:
    """Signs names with a key of its own, which ends with it."""

    def __init__(self, clock: Clock, hostname: str) -> None:
        self.key = secrets.token_bytes(32)
        self._clock = clock
        self._hostname = hostname
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Listen; the folder's rights and SO_PEERCRED are all that guards it."""
        old = os.umask(0o111)
        try:
            self._server = await asyncio.start_unix_server(self._answer, path)
        finally:
            os.umask(old)
        self._path = path

    async def stop(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def token(self, uid: int, name: str) -> str:
        """A token for a user."""
        expires = self._clock.now().boottime + MINTED_SECONDS
        minted = Minted(
            name=name, uid=uid, expires_boottime=expires, nonce=secrets.token_urlsafe(12)
        )
        return mint(self.key, minted)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = writer.get_extra_info("socket")
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            uid = _CREDENTIALS.unpack(raw)[1]
            name = f"{_user(uid)}@{self._hostname}"
            told = {
                "token": self.token(uid, name),
                "name": name,
                "expires_in_seconds": MINTED_SECONDS,
            }
            writer.write(msgspec.json.encode(told) + b"\n")
            await writer.drain()
        except OSError as error:
            log.info("auth.gone", problem=str(error))
        finally:
            writer.close()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)  # no entry, as in many containers
