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
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from gpud.access.tokens import MINTED_SECONDS, Minted, mint
from gpud.clock import Clock

log = structlog.get_logger()

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: ucred of unix(7)
_MAX_PATH_BYTES = 107
_MODE = 0o666
# A name may be asked for over the network (LDAP): so long, for so many users at once; and kept for
# as long as a token is good.
NAME_SECONDS = 1.5
MAX_ASKED = 16
MAX_WAITING = 256
MAX_KNOWN = 1024


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
        self._users = Users(clock)
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Listen; the folder's rights and SO_PEERCRED are all that guards it."""
        listening = _bound(path)
        self._path = path
        self._server = await asyncio.start_unix_server(self._answer, sock=listening)

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
            user = await self._users.name(uid)
            if user is None:
                return  # a caller without a token is whoever may open its socket
            name = f"{user}@{self._hostname}"
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


def _bound(path: Path) -> socket.socket:
    """A socket that everybody may open.

    Not by a umask: that is of the whole process, whose threads and tasks go on meanwhile.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        path.chmod(_MODE)
    except BaseException:
        made.close()
        raise
    return made


class Users:
    """Names of this host's users, asked of the system in threads: it may block for minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[int, tuple[str, float]] = {}  # and until when, oldest first
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._waiting = 0
        self._is_slow = False

    async def name(self, uid: int) -> str | None:
        """A user's name, or its number where it has none; None: it was not told in time."""
        name, until = self._known.get(uid, ("", 0.0))
        if self._clock.now().boottime < until:
            return name
        asked = self._asked.get(uid)
        if self._waiting >= MAX_WAITING or (asked is None and len(self._asked) >= MAX_ASKED):
            return None
        asked = asked or self._ask(uid)
        self._waiting += 1
        try:
            await asyncio.wait({asked}, timeout=NAME_SECONDS)
        finally:
            self._waiting -= 1
        if asked.done():
            return asked.result()
        self._tell_slow(uid)
        return None

    def _ask(self, uid: int) -> asyncio.Future[str | None]:
        """Of a thread that nobody waits for at the end: one that hangs would hold that up."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[str | None] = loop.create_future()

        def run() -> None:
            name = None
            with suppress(OSError):
                name = _user(uid)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._told, uid, name)

        threading.Thread(target=run, name=f"user {uid}", daemon=True).start()
        self._asked[uid] = asked
        return asked

    def _told(self, uid: int, name: str | None) -> None:
        self._asked.pop(uid).set_result(name)
        self._is_slow = False
        # A number may only mean that a directory was not there to be asked.
        if name not in (None, str(uid)):
            self._known.pop(uid, None)
            self._known[uid] = (name, self._clock.now().boottime + MINTED_SECONDS)
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]

    def _tell_slow(self, uid: int) -> None:
        """Once, until the system answers again: anybody may ask as often as it likes."""
        if not self._is_slow:
            reason = f"the system did not tell it within {NAME_SECONDS:g} s; no token is minted"
            log.warning("auth.no_name", uid=uid, reason=reason)
        self._is_slow = True


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)  # no entry, as in many containers
