"""The file of `gpud tls init --output`: checked before anything is issued, written after it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.x509.oid import NameOID

from gpud.access.authority.drop_in import DropIn, parsed
from gpud.access.authority.folder import Wanted
from gpud.access.authority.issuing import ALWAYS_NAMED, IssueRefused, parse_server
from gpud.access.certificates import names_of, read_certificates, readable
from gpud.errors import ConfigInvalid


class Output:
    """One file; to be asked and written while the CA's folder is ours, or two would mix."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, wanted: Wanted) -> None:
        """Whether anything could be said there. Raises IssueRefused."""
        if self.path.parent.name == "conf.d" and self.path.suffix != ".toml":
            raise IssueRefused(f"cannot use {self.path}: of a conf.d/ gpud reads *.toml alone")
        there = self._there()
        if wanted.servers and not wanted.replace and ("tls" in there or "server" in there):
            raise IssueRefused(
                f"cannot add a server to {self.path}: it has one already; leave --server out to "
                "add a client, or replace its certificates with --force"
            )

    def merged(self, said: DropIn) -> str:
        """What the file would say then. Raises IssueRefused."""
        text = self._text()
        return said.text() if text is None else said.added_to(text, str(self.path))

    def write(self, text: str) -> None:
        """Whole, or not at all. Raises OSError."""
        _write(self.path.resolve(), text)

    def server(self) -> tuple[str, int | None]:
        """The name in the certificate of the server that it is about, and the port there.

        Empty and None where it does not say. Raises IssueRefused.
        """
        there = self._there()
        path = _entry(there, "tls", "certificate")
        _, _, port = _entry(there, "server", "listen").rpartition(":")
        is_port = port.isascii() and port.isdecimal()
        name = _name_in(self.path.parent / path) if path else ""
        return name, int(port) if is_port else None

    def _there(self) -> dict[str, Any]:
        text = self._text()
        return {} if text is None else parsed(text, str(self.path))

    def _text(self) -> str | None:
        """What it says; None where there is none."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise IssueRefused(
                f"cannot add to {self.path}: {(why or str(error)).lower()}; name another file"
            ) from error


def _entry(tables: Mapping[str, Any], table: str, key: str) -> str:
    found = tables.get(table)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def _name_in(path: Path) -> str:
    """By which a server's certificate wants it to be dialled first; empty where it cannot be told.

    Whoever may write the certificate does not choose what a command line is to say: only what is
    a name or an address counts.
    """
    with contextlib.suppress(ConfigInvalid), readable("tls.certificate", str(path)):
        leaf = read_certificates("tls.certificate", str(path))[0]
        own = [
            _plain(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        names = names_of(leaf)
        for name in (*(each for each in own if each in names), *names):
            if name not in ALWAYS_NAMED and "*" not in name and _is_server(name):
                return name
    return ""


def _plain(value: str | bytes) -> str:
    return value if isinstance(value, str) else ""


def _is_server(name: str) -> bool:
    try:
        return parse_server(name) == name
    except IssueRefused:
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, 0o644 if there is None else stat.S_IMODE(there.st_mode))
            if there is not None and os.geteuid() == 0:
                os.fchown(descriptor, there.st_uid, there.st_gid)
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
