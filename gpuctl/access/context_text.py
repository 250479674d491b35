"""Pure: all contexts that are kept, what may be kept, and the text that they are kept in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpuctl.access.context import Context

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_HEAD = "# Kept by `gpuctl context`.\n"
_SETTINGS = tuple(each for each in Context._fields if each != "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All that are kept, by name. `current`: the one that is used unasked; empty: none."""

    current: str = ""
    by_name: Mapping[str, Context] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raises ValueError for what cannot be the name of a context."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            f"{name!r} is no name for a context; write letters, digits, '.', '-' and '_', "
            "at most 63, a letter or digit first"
        )


def check_parts(context: Context) -> None:
    """Raises ValueError where the parts of a context cannot be meant together."""
    if context.is_unix and (context.ca or context.cert or context.server_name):
        raise ValueError(
            "a Unix socket needs no TLS: leave out --ca, --cert, --key, --server-name"
        )
    if bool(context.cert) != bool(context.key):
        raise ValueError("--cert and --key belong together: give both")
    if context.cert and not context.ca:
        raise ValueError("--ca is missing: the CA that signed the server's certificate")
    if context.server_name and not context.ca:
        raise ValueError("--server-name is about TLS: add --ca")
    if context.token_file and not (context.is_unix or context.ca):
        raise ValueError("a token is sent over TLS or a Unix socket alone: add --ca")


def written(contexts: Contexts) -> str:
    """The TOML text that `parsed` reads back."""
    lines = [f"current = {_quoted(contexts.current)}\n"] if contexts.current else []
    for name, context in contexts.by_name.items():
        lines.append(f"\n[contexts.{_quoted(name)}]\n")
        lines += [f"{key} = {_quoted(value)}\n" for key, value in context.settings().items()]
    return _HEAD + "".join(lines)


def parsed(text: str) -> Contexts:
    """What a text keeps. Raises ValueError that says what is wrong with it."""
    import tomllib

    try:
        plain = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if unknown := sorted(set(plain) - {"current", "contexts"}):
        raise ValueError(f"it has no setting {unknown[0]!r}")
    tables = plain.get("contexts", {})
    if not isinstance(tables, dict):
        raise _broken("`contexts` is no table")
    current = plain.get("current", "")
    if not isinstance(current, str):
        raise _broken("`current` is no text")
    return Contexts(
        current=current, by_name={name: _context(name, table) for name, table in tables.items()}
    )


def _context(name: str, table: Any) -> Context:
    check_name(name)
    if not isinstance(table, dict):
        raise _broken(f"`contexts.{name}` is no table")
    for key, value in table.items():
        if key not in _SETTINGS:
            raise ValueError(
                f"[contexts.{name}] has no setting {key!r}; there are {', '.join(_SETTINGS)}"
            )
        if not isinstance(value, str):
            raise _broken(f"`{key}` of [contexts.{name}] is no text")
    if not table.get("address"):
        raise ValueError(f"[contexts.{name}] has no address")
    return Context(name=name, **table)


def _broken(what: str) -> ValueError:
    # Of the text, whatever type it gave a value: for callers one error, as TOML's own is.
    return ValueError(what)


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    if character < " " or character == "\x7f":
        return f"\\u{ord(character):04x}"
    return character
