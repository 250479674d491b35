"""Pure: what the configuration has to say of what was issued: a file of conf.d/, new or added to.

What somebody wrote into such a file (a role, another port, a comment) stays as it is.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from gpud.access.authority.issuing import IssueRefused

_IDENTITIES = re.compile(r"\s*\[\s*identities\s*\]\s*(#.*)?")
_CONTEXT = re.compile(r"# +gpuctl context add \S+ ")
_KEY = re.compile(r"""\s*("([^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)""")
_TABLE = re.compile(r"\s*\[")


class DropIn(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said: tables of the server, who is let in as what, and comments.

    `replaced`: names that are no longer let in, and who has their role instead.
    """

    listen: str = ""
    tls: Mapping[str, str] = {}
    identities: Mapping[str, str] = {}
    replaced: Mapping[str, str] = {}
    comments: tuple[str, ...] = ()

    def text(self) -> str:
        """A file of its own."""
        return _joined([*self._server(), *self._identities(self.identities), *self.comments])

    def added_to(self, text: str, file: str) -> str:
        """A file that says it beside what it says already. Raises IssueRefused."""
        old = parsed(text, file)
        check_server(old, self.tls, file)
        lines = text.splitlines()
        known = old.get("identities", {})
        if not isinstance(known, dict):
            raise IssueRefused(f"cannot add to {file}: its identities are no table; mend it")
        known = _renamed(lines, known, self.replaced)
        missing = {name: role for name, role in self.identities.items() if name not in known}
        if "identities" in old:
            at = _end_of_identities(lines)
            lines[at:at] = _entries(missing)
        blocks = [] if "tls" in old else self._server()
        if missing and "identities" not in old:
            blocks += self._identities(missing)
        blocks += [each for each in self.comments if not _put_in_place(lines, each)]
        made = _joined([*lines, "", *blocks] if blocks else lines)
        if _table(made, "identities") != {**known, **missing}:
            raise IssueRefused(
                f"cannot add to {file}: its [identities] is not one table of lines; "
                "make it one, or name another file"
            )
        return made

    def _server(self) -> list[str]:
        if not self.tls:
            return []
        return [
            "# The port is open to all that reach this host; who has no certificate is refused.",
            "[server]",
            f"listen = {quoted(self.listen)}",
            "",
            "[tls]",
            *(f"{key} = {quoted(value)}" for key, value in self.tls.items()),
            "",
        ]

    def _identities(self, identities: Mapping[str, str]) -> list[str]:
        if not identities:
            return []
        return [
            "[identities]",
            "# viewer reads, operator reserves and loads, admin does all.",
            *_entries(identities),
            "",
        ]


def parsed(text: str, file: str) -> dict[str, Any]:
    """The tables of a file that is to be added to. Raises IssueRefused."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise IssueRefused(
            f"cannot add to {file}: it is no TOML ({error}); mend it, or name another file"
        ) from error


def check_server(old: Mapping[str, Any], tls: Mapping[str, str], file: str) -> None:
    """Refuse to say of a server what a file says otherwise. Raises IssueRefused."""
    if not tls or not ("tls" in old or "server" in old):
        return
    there = old.get("tls", {})
    if not isinstance(there, dict) or {key: there.get(key) for key in tls} != dict(tls):
        raise IssueRefused(
            f"cannot add a server to {file}: it has a [server] or a [tls] that says something "
            "else; name another file, or leave --server out"
        )


def quoted(text: str) -> str:
    """As a basic string of TOML, which JSON's are for what is printable."""
    return json.dumps(text, ensure_ascii=False)


def _entries(identities: Mapping[str, str]) -> list[str]:
    return [f"{quoted(name)} = {quoted(role)}" for name, role in identities.items()]


def _renamed(
    lines: list[str], known: Mapping[str, Any], replaced: Mapping[str, str]
) -> dict[str, Any]:
    """The table with the new names for the old ones, as the lines then have it too."""
    made = dict(known)
    for old, new in replaced.items():
        if old not in made:
            continue
        role = made.pop(old)
        entry = {old: role}
        at = next((n for n, line in enumerate(lines) if _parsed_line(line) == entry), None)
        if at is not None:
            key = _KEY.match(lines[at])
            lines[at : at + 1] = (
                [] if new in made or key is None else [quoted(new) + lines[at][key.end() :]]
            )
        made.setdefault(new, role)
    return made


def _parsed_line(line: str) -> object:
    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None


def _put_in_place(lines: list[str], comment: str) -> bool:
    """Whether the comment is there, or one of the same client, whose place it then has."""
    if comment in lines:
        return True
    of_client = _CONTEXT.match(comment)
    for number, line in enumerate(lines):
        if of_client is not None and line.startswith(of_client[0]):
            lines[number] = comment
            return True
    return False


def _end_of_identities(lines: list[str]) -> int:
    """Where a line goes that is to be the last of the table; at the end if it is not found."""
    begin = next((n for n, line in enumerate(lines) if _IDENTITIES.fullmatch(line)), None)
    if begin is None:
        return len(lines)
    last = begin
    for number, line in enumerate(lines[begin + 1 :], begin + 1):
        if _TABLE.match(line):
            break
        if line.strip() and not line.lstrip().startswith("#"):
            last = number
    return last + 1


def _table(text: str, name: str) -> object:
    try:
        return tomllib.loads(text).get(name, {})
    except tomllib.TOMLDecodeError:
        return None


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"
