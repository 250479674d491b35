"""The channel to a gpud: in the clear on a socket or loopback, else TLS with a context's files."""

from __future__ import annotations

import grpc

from gpuctl.access.context import Context
from gpuctl.failures import Failure, usage

_OPTIONS = (
    # A proxy of the environment is meant for the web, never for the daemon next door.
    ("grpc.enable_http_proxy", 0),
    # A snapshot of many cards with their processes is the largest message; gpud bounds it.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A daemon that restarts is back within a second; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def open_channel(context: Context) -> grpc.Channel:
    """A channel, which connects when it is first used. Raises Failure where a file is missing."""
    if not context.uses_tls:
        return grpc.insecure_channel(context.address, options=_OPTIONS)
    options = [*_OPTIONS]
    if context.server_name:
        options.append(("grpc.ssl_target_name_override", context.server_name))  # type: ignore[arg-type]
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(context, "ca"),
        private_key=_read(context, "key") if context.key else None,
        certificate_chain=_read(context, "cert") if context.cert else None,
    )
    return grpc.secure_channel(context.address, credentials, options=options)


def _read(context: Context, part: str) -> bytes:
    path = getattr(context, part)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib would be an import more)
            return file.read()
    except OSError as error:
        raise missing_file(context, part, error) from error


def missing_file(context: Context, part: str, error: OSError) -> Failure:
    """A file of a context that cannot be read."""
    named = f" of the context {context.name!r}" if context.name else ""
    option = "--" + part.replace("_", "-")
    return usage(
        f"cannot read {getattr(context, part)}{named}: {error.strerror or error}; "
        f"put it there, or name another with {option} (`gpuctl context add --replace`)"
    )
