"""The bearer token that calls carry: of a file, or minted for this user by the auth socket."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from gpuctl.access.addresses import auth_socket, socket_path
from gpuctl.access.channel import missing_file
from gpuctl.access.context import Context
from gpuctl.failures import EXIT_REFUSED_BASE, Failure, usage

_READABLE_BY_OTHERS = 0o004
_MOST_BYTES = 4096
_MOST_SECONDS = 2.0
# Another one is asked for when this part of the time is left.
_LAST_PART = 0.2


class Taken(NamedTuple):
    """A token, who it says calls, and how long it is good for; None: as long as its file."""

    token: str
    says: str
    seconds: float | None = None


class Bearer:
    """The token as it is now. Any thread may ask.

    `minter` tells one life of whoever mints it from another, None where there is none: of a former
    one the token is merely old, and is not shown to gpud only to be refused and told of.
    """

    def __init__(
        self,
        source: Callable[[], Taken | None],
        ticks: Callable[[], float] = time.monotonic,
        minter: Callable[[], object] = lambda: None,
    ) -> None:
        self._source = source
        self._ticks = ticks
        self._minter = minter
        self._minted_by: object = None
        self._lock = threading.Lock()
        self._taken: Taken | None = None
        self._renew_at = self._ends_at = 0.0

    def token(self) -> str | None:
        """None where there is none to be had. Raises Failure where there should be one."""
        with self._lock:
            if self._taken is None or self._ticks() >= self._renew_at or self._is_former():
                self._renew()
            return self._taken.token if self._taken is not None else None

    def renewed(self, refused: str | None) -> bool:
        """Whether there is another token than the refused one. Raises Failure as `token` does."""
        with self._lock:
            if self._taken is not None and self._taken.token == refused:
                self._ends_at = 0.0
                self._renew()
            return self._taken is not None and self._taken.token != refused

    @property
    def says(self) -> str:
        """Who the token says calls; empty without one."""
        return self._taken.says if self._taken is not None else ""

    def _is_former(self) -> bool:
        minter = self._minter()
        return minter is not None and minter != self._minted_by

    def _renew(self) -> None:
        # Before it is asked: one that ends meanwhile is a former one at the next look.
        self._minted_by = self._minter() or self._minted_by
        try:
            taken = self._source()
        except Failure:
            if self._ticks() < self._ends_at:
                return  # the one before is still good
            raise
        if taken is None and self._taken is not None:
            if self._ticks() < self._ends_at:
                return
            # To go on without would be to go on as somebody else.
            raise _no_token("the auth socket is gone; gpud may be restarting")
        self._taken = taken
        seconds = taken.seconds if taken is not None else None
        now = self._ticks()
        self._ends_at = float("inf") if seconds is None else now + seconds
        self._renew_at = self._ends_at if seconds is None else now + seconds * (1 - _LAST_PART)


def bearer_for(context: Context, timeout_seconds: float) -> Bearer:
    """What a context's calls carry. `token` refuses to send one in the clear.

    An auth socket is listened to for the timeout, or 2 s.
    """
    if context.token_file:
        return Bearer(lambda: _of_file(context))
    if context.is_unix:
        path = auth_socket(socket_path(context.address))
        limit = min(timeout_seconds, _MOST_SECONDS)
        return Bearer(lambda: _minted(path, limit), minter=lambda: _born(path))
    return Bearer(lambda: None)


def file_token(path: str) -> str:
    """The token in a file. Raises OSError, or Failure for what is none."""
    with open(path, "rb") as file:  # noqa: PTH123 (pathlib would be an import more)
        data = file.read(_MOST_BYTES + 1)
    words = data.split()
    text = words[0].decode("ascii", "replace") if len(words) == 1 else ""
    if len(data) > _MOST_BYTES or not text.isprintable() or not text.isascii() or not text:
        raise usage(f"cannot use {path}: it must hold one token, as gpud_… on a line, and no more")
    return text


def is_open_to_others(path: str) -> bool:
    """Whether every user of the host can read a file."""
    return bool(os.stat(path).st_mode & _READABLE_BY_OTHERS)  # noqa: PTH116


def _of_file(context: Context) -> Taken:
    path = context.token_file
    if not (context.is_unix or context.uses_tls):
        raise usage(
            f"cannot send the token of {path} to {context.address} in the clear, where others "
            "can read it; use TLS (`gpuctl context add NAME --address HOST:PORT --ca FILE`) or "
            "a Unix socket"
        )
    try:
        token = file_token(path)
        if is_open_to_others(path):
            print(
                f"gpuctl: warning: every user of this host can read the token in {path}; "
                f"`chmod 600 {path}`",
                file=sys.stderr,
            )
    except OSError as error:
        raise missing_file(context, "token_file", error) from error
    return Taken(token=token, says=f"with the token of {path}")


def _minted(path: str, limit_seconds: float) -> Taken | None:
    """None where no auth socket lets this user in, as with an older gpud."""
    if not os.path.exists(path):  # noqa: PTH110 (pathlib would be an import more)
        return None
    try:
        said = _heard(path, limit_seconds)
    except TimeoutError as error:
        raise _no_token(f"{path} did not answer within {limit_seconds:g} s") from error
    except OSError:
        return None
    import json

    try:
        told = json.loads(said)
        token, name, seconds = told["token"], told["name"], float(told["expires_in_seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise _no_token(f"{path} did not answer with a token") from error
    is_word = isinstance(token, str) and token.isascii() and token.isprintable() and token
    if not is_word or not 0 < seconds < float("inf"):
        raise _no_token(f"{path} did not answer with a token")
    return Taken(token=token, says=f"as {name}", seconds=seconds)


def _born(path: str) -> tuple[int, int, int] | None:
    """Which socket lies there: each life of gpud makes its own. None: none does."""
    try:
        status = os.stat(path)  # noqa: PTH116 (pathlib would be an import more)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _heard(path: str, limit_seconds: float) -> bytes:
    """The line that the auth socket says, or what it said until it closed."""
    until = time.monotonic() + limit_seconds
    said = b""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(limit_seconds)
        asking.connect(path)
        while not said.endswith(b"\n") and len(said) <= _MOST_BYTES:
            asking.settimeout(max(0.001, until - time.monotonic()))
            part = asking.recv(_MOST_BYTES)
            if not part:
                break
            said += part
    return said


def _no_token(why: str) -> Failure:
    code = grpc.StatusCode.UNAVAILABLE
    return Failure(
        message=f"cannot tell gpud who calls: {why}",
        exit_code=EXIT_REFUSED_BASE + code.value[0],
        notes=("try again; if it stays so, gpud's log tells more (`journalctl -u gpud`)",),
        code=code,
    )
