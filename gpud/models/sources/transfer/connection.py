"""One question to an HTTP server and its answer, with a limit on every wait; for a thread.

A timeout of the socket alone would let a server hold us for ever with a byte now and then, so a
watchdog counts what comes in each stretch of time, and shuts a connection that brings too little.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gpud import __version__, threads
from gpud.models.sources.jobs import Control
from gpud.models.sources.refusals import SourceInvalid
from gpud.models.sources.rules import (
    MAX_REDIRECTS,
    check_peer,
    check_redirect,
    same_place,
)

CHUNK_BYTES: Final = 1024 * 1024
CONNECT_SECONDS: Final = 15.0
# What comes slower than a modem of 1990 does not come.
LEAST_BYTES_PER_SECOND: Final = 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class ConnectionBroken(Exception):
    """It ended, or brought too little, before all was here; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked; `token` is shown to the URL's own server alone."""

    url: str
    headers: Mapping[str, str]
    token: str = ""
    allow_http: bool = False
    stall_seconds: float = 60.0


class Answer:
    """Status, headers by lower-case names, and a body that is read in pieces."""

    def __init__(self, response: http.client.HTTPResponse, watchdog: _Watchdog) -> None:
        self._response = response
        self._watchdog = watchdog
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def read(self) -> bytes:
        """The next piece; empty at the end. Raises ConnectionBroken."""
        try:
            data = self._response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._watchdog.broken(error) from error
        self._watchdog.received_bytes += len(data)
        if not data and self._watchdog.fired:
            raise self._watchdog.broken(None)
        return data


class _Watchdog:
    """Shuts a connection that brings less than the least in a stretch of time."""

    def __init__(self, connected: socket.socket, stall_seconds: float) -> None:
        self._socket = connected
        self._stall_seconds = stall_seconds
        self._ended = threading.Event()
        self.received_bytes = 0
        self.fired = False

    def __enter__(self) -> _Watchdog:
        threads.start(self._watch, "download watchdog", "watch a download")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def broken(self, error: Exception | None) -> ConnectionBroken:
        """Why nothing more came."""
        if self.fired or isinstance(error, TimeoutError):
            return ConnectionBroken(
                f"it brought less than {LEAST_BYTES_PER_SECOND} bytes/s "
                f"for {self._stall_seconds:g} s"
            )
        return ConnectionBroken(f"the connection broke ({_words(error)})")

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(self._stall_seconds):
            now = self.received_bytes
            if now - before < LEAST_BYTES_PER_SECOND * self._stall_seconds:
                self.fired = True
                shut(self._socket)
                return
            before = now


def shut(connected: socket.socket) -> None:
    """End whatever a thread is blocked in on a connection; TLS is not asked."""
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


@contextmanager
def answered(question: Question, control: Control) -> Iterator[Answer]:
    """The answer of the server that redirects lead to.

    Raises ConnectionBroken, SourceInvalid for a redirect that is not followed, and JobStopped.
    """
    url = question.url
    for _ in range(MAX_REDIRECTS + 1):
        with _asked(url, question, control) as answer:
            if answer.status not in _REDIRECTS:
                yield answer
                return
            location = answer.headers.get("location", "")
        if not location:
            raise SourceInvalid("is redirected to nowhere")
        url = check_redirect(url, location, allow_http=question.allow_http)
    raise SourceInvalid(f"is redirected more than {MAX_REDIRECTS} times")


@contextmanager
def _asked(url: str, question: Question, control: Control) -> Iterator[Answer]:
    connection = _connection(url)
    try:
        connected = _connect(connection, url)
        connected.settimeout(question.stall_seconds)
        with (
            control.closing(lambda: shut(connected)),
            _Watchdog(connected, question.stall_seconds) as watchdog,
        ):
            try:
                connection.request("GET", _target(url), headers=_headers(url, question))
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                control.check()
                raise watchdog.broken(error) from error
            with response:  # else it would keep the socket
                yield Answer(response, watchdog)
    finally:
        connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname or "",
            parts.port,
            timeout=CONNECT_SECONDS,
            context=ssl.create_default_context(),
        )
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)


def _connect(connection: http.client.HTTPConnection, url: str) -> socket.socket:
    host = urlsplit(url).hostname or ""
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise SourceInvalid(f"has a certificate that is not trusted: {_words(error)}") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise ConnectionBroken(f"{host} cannot be reached ({_words(error)})") from error
    connected: socket.socket = connection.sock
    check_peer(host, str(connected.getpeername()[0]))
    return connected


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(url: str, question: Question) -> dict[str, str]:
    headers = {
        "User-Agent": f"gpud/{__version__}",
        "Accept-Encoding": "identity",  # a range is one of the file, not of a packed form of it
        "Connection": "close",
        **question.headers,
    }
    if question.token and same_place(url, question.url):
        headers["Authorization"] = f"Bearer {question.token}"
    return headers


def _words(error: Exception | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, http.client.IncompleteRead):
        return "it ended too early"
    return (str(error) or type(error).__name__) if error is not None else "it was shut"
