"""What is looked at in the files of a context before it is kept."""

from __future__ import annotations

import re
import ssl

from gpuctl.access.channel import missing_file
from gpuctl.access.context import Context
from gpuctl.access.tokens import file_token, is_open_to_others
from gpuctl.access.trouble import expired_on
from gpuctl.failures import usage

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_FORM = r"gpud_[A-Za-z0-9_-]{43}"
_KEY_END = "PRIVATE KEY-----"


def check_files(context: Context) -> list[str]:
    """What is worth a warning. Raises Failure for files that no connection could be made with."""
    if context.ca:
        _check_ca(context)
    if context.cert:
        _check_pair(context)
    if context.token_file:
        _check_token(context)
    return _warnings(context)


def _check_token(context: Context) -> None:
    try:
        token = file_token(context.token_file)
    except OSError as error:
        raise missing_file(context, "token_file", error) from error
    if not re.fullmatch(_FORM, token):
        raise usage(
            f"--token-file {context.token_file} holds no token: one is gpud_ and 43 letters, "
            "digits, '-' or '_', as `gpud token create` prints it on its first line"
        )


def _check_ca(context: Context) -> None:
    if _CERTIFICATE not in _text(context, "ca"):
        raise usage(f"--ca {context.ca} holds no PEM certificate (BEGIN CERTIFICATE)")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(context.ca)
    except ssl.SSLError as error:
        raise usage(f"--ca {context.ca} is broken: {error.reason or error}") from error


def _check_pair(context: Context) -> None:
    if _CERTIFICATE not in _text(context, "cert"):
        raise usage(f"--cert {context.cert} holds no PEM certificate (BEGIN CERTIFICATE)")
    key = _text(context, "key")
    if _KEY_END not in key:
        raise usage(f"--key {context.key} holds no PEM key (BEGIN PRIVATE KEY)")
    if "ENCRYPTED" in key:
        raise usage(
            f"--key {context.key} is encrypted, and nobody is asked for its password; "
            "write it without one, mode 0600: `openssl pkey -in FILE -out PLAIN`"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(context.cert, context.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "the key is not that of the certificate"
        else:
            why = str(error.reason or error)
        raise usage(f"--cert {context.cert} and --key {context.key} cannot be used: {why}") from (
            error
        )


def _text(context: Context, part: str) -> str:
    try:
        with open(getattr(context, part), encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise missing_file(context, part, error) from error


def _warnings(context: Context) -> list[str]:
    secret = [path for path in (context.key, context.token_file) if path]
    told = [
        f"every user of this host can read {path}; `chmod 600 {path}`"
        for path in secret
        if is_open_to_others(path)
    ]
    if context.cert and (expired := expired_on(context.cert)):
        told.append(f"the certificate in {context.cert} expired on {expired}")
    return told
