"""Why nothing comes of a connection, found out by trying once more, without gRPC in between.

gRPC tells all of it as UNAVAILABLE, with a text that changes from version to version.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from gpuctl.access.addresses import host_of, main_socket, role_sockets, socket_path, usable
from gpuctl.access.context import Context
from gpuctl.failures import SYSTEM_SOCKET

_PROBE_SECONDS = 1.0
# X509_V_ERR_… of OpenSSL.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAMES = {62, 64}
# What a handshake ends with where the other side speaks something else.
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why, and what to do next."""

    why: str
    notes: tuple[str, ...]


def find_trouble(context: Context) -> Trouble | None:
    """What keeps a connection from coming about; None if nothing does by now.

    Takes three seconds at most.
    """
    try:
        if context.is_unix:
            return _try_socket(context)
        with socket.create_connection(_host_and_port(context), _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            if context.uses_tls:
                return _try_tls(context, connection)
    except ConnectionRefusedError:
        return Trouble(why="nothing listens there", notes=_start_it(context))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return Trouble(why=why, notes=_start_it(context))
    return _wants_tls(context)


def _host_and_port(context: Context) -> tuple[str, int]:
    return host_of(context.address), int(context.address.rpartition(":")[2])


def _start_it(context: Context) -> tuple[str, ...]:
    if context.name:
        return (
            "start gpud on that host (`systemctl start gpud`), "
            f"or see where it should be: `gpuctl context show {context.name}`",
        )
    start = (
        "start it with `gpud run --config FILE` or `systemctl start gpud`, "
        "or name another address with --address or GPUCTL_ADDRESS"
    )
    system = usable(SYSTEM_SOCKET)
    if main_socket(socket_path(context.address)) != SYSTEM_SOCKET and Path(system).exists():
        return (start, f"the system's daemon has its socket here: --address {system}")
    return (start,)


def _try_socket(context: Context) -> Trouble | None:
    path = socket_path(context.address)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PROBE_SECONDS)
            connection.connect(path)
    except FileNotFoundError:
        return Trouble(why="there is no such socket, so it does not run", notes=_start_it(context))
    except PermissionError:
        return _not_let_in(path)
    return None


def _not_let_in(path: str) -> Trouble:
    """Which of the sockets that lie there are for whom."""
    others = [
        each for each in role_sockets(main_socket(path)) if each != path and Path(each).exists()
    ]
    found = usable(main_socket(path))
    if found in others and os.access(found, os.W_OK):
        return Trouble(
            why="this user may not use that socket", notes=(f"it may this: --address {found}",)
        )
    why = "".join(("this user may not use that socket", *(f", nor {each}" for each in others)))
    group = _group(others[0]) if others else ""
    if not group:
        return Trouble(why=why, notes=("ask an admin of this host for a role",))
    return Trouble(
        why=why,
        notes=(f"{others[0]} is for the group {group}: ask to be put into it, then log in again",),
    )


def _group(path: str) -> str:
    try:
        return Path(path).group()
    except (OSError, KeyError):
        return ""  # a number alone, as in many containers


def _try_tls(context: Context, connection: socket.socket) -> Trouble | None:
    try:
        client = _client_of(context)
    except (OSError, ValueError) as error:
        # ssl.SSLError is an OSError, and says little: `gpuctl context add` looks closer.
        why = f"the context's files cannot be used ({getattr(error, 'reason', '') or error})"
        return Trouble(why=why, notes=(f"see which: `gpuctl context show {context.name}`",))
    host = context.server_name or host_of(context.address)
    try:
        with client.wrap_socket(connection, server_hostname=host) as talking:
            # A gRPC server begins to talk as soon as it takes the client for one of its own.
            if talking.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        return _distrusted(context, host, error)
    except TimeoutError:
        return Trouble(why="it does not answer a TLS handshake", notes=_start_it(context))
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            return Trouble(
                why="the server there does not speak TLS",
                notes=("set [tls] in gpud's configuration, or add the context without --ca",),
            )
    except OSError:
        pass  # it hung up, which says as much as an end
    return _turned_away(context)


def _client_of(context: Context) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(context.ca)
    if context.cert:
        # An encrypted key would be asked for at the terminal; gRPC cannot use one either.
        made.load_cert_chain(context.cert, context.key, password=lambda: b"")
    made.set_alpn_protocols(["h2"])
    return made


def _distrusted(context: Context, host: str, error: ssl.SSLCertVerificationError) -> Trouble:
    if error.verify_code in _OTHER_NAMES:
        return Trouble(
            why=f"the server's certificate is not for {host!r}",
            notes=("name it as the certificate does: --server-name NAME (`gpuctl context add`)",),
        )
    if error.verify_code in {_EXPIRED, _NOT_YET_VALID}:
        state = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return Trouble(
            why=f"the server's certificate {state}",
            notes=(
                "put a new one in its place on that host, where gpud reads it by itself; "
                "and compare the clocks",
            ),
        )
    return Trouble(
        why=f"the server's certificate is not of the CA in {context.ca} ({error.verify_message})",
        notes=("take the CA that signed it from that host: --ca FILE (`gpuctl context add`)",),
    )


def _turned_away(context: Context) -> Trouble:
    if not context.cert:
        return Trouble(
            why="the server hung up; it may want a client certificate, and there is none",
            notes=(
                "ask for one there, and give it: --cert FILE --key FILE (`gpuctl context add`)",
            ),
        )
    expired = expired_on(context.cert)
    when = f", which expired on {expired}" if expired else ""
    return Trouble(
        why=f"the server does not take the certificate in {context.cert}{when}",
        notes=("ask an admin of that node for a new one, of its client CA and for clients",),
    )


def expired_on(path: str) -> str:
    """The day when a certificate expired; empty if it has not, or cannot be told."""
    from datetime import UTC, datetime

    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return ""
    return "" if ends > datetime.now(UTC) else f"{ends:%Y-%m-%d}"


def _wants_tls(context: Context) -> Trouble | None:
    """Whether TLS is spoken where a plain connection was meant."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE  # nothing is told there but hello
    try:
        with (
            socket.create_connection(_host_and_port(context), _PROBE_SECONDS) as connection,
            anybody.wrap_socket(connection),
        ):
            pass
    except (OSError, ValueError):
        return None
    return Trouble(
        why="the server there speaks TLS, and this address has no CA to trust it by",
        notes=(
            "`gpuctl context add NAME --address "
            f"{context.address} --ca FILE`, then --context NAME",
        ),
    )
