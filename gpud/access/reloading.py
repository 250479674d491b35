"""Certificates and the list of the denied, read again when their files change.

What is no good is refused and told, and what was in force stays in force. Nothing here has a
thread or a task: whoever owns one calls `look` now and then, off the event loop, for it reads
files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import grpc
import structlog

from gpud.access.certificates import Pair, read_pair, read_plain
from gpud.access.denied import MAX_DENIED_BYTES, Denied, doubt, parse_denied
from gpud.clock import Clock
from gpud.errors import ConfigInvalid
from gpud.events import Event
from gpud.settings import Tls

log = structlog.get_logger()

_SUBJECT = "node"
# Of each file: inode, size, and the moments of its last change, in nanoseconds; None: not there.
_Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateState:
    """How server.listen's certificate stands; moments in seconds since the epoch.

    `last_error` is why the files as they are now are not in use, and empty when they are;
    `last_error_wall` is when that was found.
    """

    not_after_wall: float
    client_ca_not_after_wall: float | None
    fingerprint: str
    reload_count: int = 0
    refused_count: int = 0
    last_error: str = ""
    last_error_wall: float | None = None


class _Files:
    """Says when one of some files became another.

    By content alone they would have to be read each time; by the time of the change of the inode,
    unlike that of its content, a `chmod` is seen as well.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._stamp = self._read()

    def changed(self) -> bool:
        """Whether one changed since this was asked last."""
        before, self._stamp = self._stamp, self._read()
        return self._stamp != before

    def _read(self) -> _Stamp:
        return tuple(map(_stamp, self._paths))


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 -- asked every second
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ServerCertificates:
    """The pair of [tls] that new connections get."""

    def __init__(self, tls: Tls, clock: Clock) -> None:
        """Read it. Raises ConfigInvalid where it is no good: there is none before it to keep."""
        self._tls, self._clock = tls, clock
        # Stamped before they are read: what changes in between is read again at the next look.
        self._files = _Files([each for each in (tls.certificate, tls.key, tls.client_ca) if each])
        self._take(read_pair(tls, clock.now().wall))
        self.state = CertificateState(
            not_after_wall=self.pair.not_after_wall,
            client_ca_not_after_wall=self.pair.client_ca_not_after_wall,
            fingerprint=self.pair.fingerprint,
        )

    def credentials(self) -> grpc.ServerCredentials:
        """For one listener: each new connection gets the pair that is then in force."""
        # Each listener keeps what it was handed last, so it is remembered for each apart.
        handed = self._configuration

        def newest() -> grpc.ServerCertificateConfiguration | None:
            """None: nothing new. Called by gRPC's threads, one call for each handshake."""
            nonlocal handed
            configuration = self._configuration
            if configuration is handed:
                return None
            handed = configuration
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            handed,
            newest,  # type: ignore[arg-type]  # the stub does not know of None
            require_client_authentication=bool(self._tls.client_ca),
        )

    def look(self) -> list[Event]:
        """Read the files again if they changed; what is to be told of it, once per change.

        Whatever they hold, the pair in force goes on serving unless they are good.
        """
        changed = self._files.changed()
        # One that was refused may become good without a change: its first day comes.
        if not changed and not self.state.last_error:
            return []
        now_wall = self._clock.now().wall
        try:
            pair = read_pair(self._tls, now_wall)
            if pair == self.pair and not self.state.last_error:
                return []
            self._take(pair)
        except ConfigInvalid as error:
            problem = str(error)
        except Exception as error:
            # Of ours or of a library; raised further it would end the daemon.
            problem = f"cannot use tls.certificate {self._tls.certificate}: {error!r}"
            if changed:
                log.exception("tls.bug", path=self._tls.certificate)
        else:
            return [self._reloaded(pair, now_wall)]
        return [self._refused(problem, now_wall)] if changed else []

    def _take(self, pair: Pair) -> None:
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(pair.key, pair.certificate)], root_certificates=pair.client_ca
        )
        self.pair = pair

    def _reloaded(self, pair: Pair, now_wall: float) -> Event:
        self.state = replace(
            self.state,
            not_after_wall=pair.not_after_wall,
            client_ca_not_after_wall=pair.client_ca_not_after_wall,
            fingerprint=pair.fingerprint,
            reload_count=self.state.reload_count + 1,
            last_error="",
            last_error_wall=None,
        )
        reason = f"{self._tls.certificate}: new connections get {pair.subject}"
        details = {"fingerprint": pair.fingerprint, "not_after": f"{pair.not_after_wall:.0f}"}
        return _event(now_wall, "tls.reloaded", reason, details)

    def _refused(self, problem: str, now_wall: float) -> Event:
        self.state = replace(
            self.state,
            refused_count=self.state.refused_count + 1,
            last_error=problem,
            last_error_wall=now_wall,
        )
        reason = f"{problem}; the certificate in force goes on serving"
        return _event(now_wall, "tls.refused", reason, {"fingerprint": self.pair.fingerprint})


class DenyList:
    """The file of access.denied; without one nobody is denied."""

    def __init__(self, path: str, clock: Clock, known: Collection[str]) -> None:
        """Read it. Raises ConfigInvalid where it cannot be read or a line is no good.

        Names that are not `known` may be mistakes, which are told.
        """
        self._path, self._clock, self._known = path, clock, known
        self._files = _Files([path] if path else [])
        self.denied = read_denied(path) if path else Denied()
        self.last_error = ""
        self._doubt()

    @property
    def has_file(self) -> bool:
        """Whether there is a file to look at."""
        return bool(self._path)

    def look(self) -> list[Event]:
        """Read the file again if it changed; what is to be told of it, once per change.

        A file that is gone or no good denies whom it denied before.
        """
        changed = self._files.changed()
        if not changed and not self.last_error:
            return []
        now_wall = self._clock.now().wall
        try:
            denied = read_denied(self._path)
        except ConfigInvalid as error:
            return self._refused(str(error), now_wall) if changed else []
        if denied == self.denied and not self.last_error:
            return []
        return self._changed(denied, now_wall)

    def _changed(self, denied: Denied, now_wall: float) -> list[Event]:
        self.denied, self.last_error = denied, ""
        count = len(denied.names) + len(denied.serials) + len(denied.fingerprints)
        entries = "1 entry is" if count == 1 else f"{count} entries are"
        reason = f"{self._path}: {entries} refused from now on"
        if doubtful := self._doubt():
            reason = f"{reason}; {doubtful}"
        return [_event(now_wall, "access.denied_changed", reason, {"count": str(count)})]

    def _doubt(self) -> str:
        if doubtful := doubt(self.denied, self._known):
            log.warning("access.denied_doubtful", path=self._path, reason=doubtful)
        return doubtful

    def _refused(self, problem: str, now_wall: float) -> list[Event]:
        self.last_error = problem
        reason = f"{problem}; whoever was denied stays so"
        return [_event(now_wall, "access.denied_refused", reason, {})]


def read_denied(path: str) -> Denied:
    """What the file denies now. Raises ConfigInvalid naming it, and the line where it is one."""
    data, _ = read_plain("access.denied", path, MAX_DENIED_BYTES)
    try:
        return parse_denied(data.decode(), path)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigInvalid(f"cannot use access.denied {path}:{line}: is not UTF-8") from error


def _event(wall: float, type_: str, reason: str, details: dict[str, str]) -> Event:
    return Event(wall=wall, type=type_, subject=_SUBJECT, reason=reason, details=details)
