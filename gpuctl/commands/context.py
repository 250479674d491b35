"""`gpuctl context`: the gpuds that are called by a name, and how to prove there who calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from gpuctl.access.addresses import grpc_target
from gpuctl.access.checking import check_files
from gpuctl.access.choosing import named
from gpuctl.access.context import Context
from gpuctl.access.context_text import Contexts, check_name, check_parts
from gpuctl.access.contexts import change_contexts, read_contexts
from gpuctl.failures import usage
from gpuctl.options import command, global_options
from gpuctl.session import Session
from gpuctl.tables import Column, clean


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A row: a context, and whether it is the current one."""

    context: Context
    is_current: bool

    def plain(self) -> dict[str, object]:
        """For JSON and YAML; what is not set is absent."""
        said = self.context.settings()
        return {"name": self.context.name, "current": self.is_current, **said}


def _identity(shown: _Shown) -> str:
    """By what it is known there, as far as the files' names tell."""
    context = shown.context
    if context.cert:
        return f"certificate {Path(context.cert).name}"
    if context.token_file:
        return f"token {Path(context.token_file).name}"
    return "this user" if context.is_unix else "none"


_COLUMNS: tuple[Column[_Shown], ...] = (
    Column(header="CURRENT", cell=lambda s: "*" if s.is_current else " "),
    Column(header="NAME", cell=lambda s: s.context.name),
    Column(header="ADDRESS", cell=lambda s: s.context.address, shrinks=True),
    Column(header="IDENTITY", cell=_identity),
    Column(header="CA", cell=lambda s: s.context.ca, wide=True),
    Column(header="CERT", cell=lambda s: s.context.cert, wide=True),
    Column(header="KEY", cell=lambda s: s.context.key, wide=True),
    Column(header="TOKEN FILE", cell=lambda s: s.context.token_file, wide=True),
    Column(header="SERVER NAME", cell=lambda s: s.context.server_name, wide=True),
)


def _context(**_options: Any) -> None:
    """Keep the addresses of gpuds by name, each with its CA and what proves who calls.

    Which one a command speaks to: --address, --context, GPUCTL_ADDRESS, GPUCTL_CONTEXT, the
    current context, or the default socket, in this order.
    """


context = click.Group(
    name="context", callback=_context, help=_context.__doc__, params=global_options()
)


@command()
@click.argument("name")
@click.option("--address", required=True, help="HOST:PORT or unix:///path.")
@click.option(
    "--ca", metavar="FILE", default="", help="The CA of the server's certificate, PEM: TLS."
)
@click.option("--cert", metavar="FILE", default="", help="Our certificate, PEM.")
@click.option("--key", metavar="FILE", default="", help="Its key, PEM, without a password.")
@click.option(
    "--token-file", metavar="FILE", default="",
    help="A bearer token; over TCP beside --cert where the node has a tls.client_ca.",
)  # fmt: skip
@click.option("--server-name", default="", help="What the server's certificate is for.")
@click.option("--replace", "replaces", is_flag=True, help="Take the place of one of that name.")
@click.option("--use", "uses", is_flag=True, help="Make it the current one.")
def add(
    session: Session, name: str, address: str, replaces: bool, uses: bool, **given: str
) -> None:
    """Keep an address under a name. The files are looked at, and stay where they are."""
    made = Context(name=name, address=grpc_target(address), **_absolute(given))
    try:
        check_name(name)
        check_parts(made)
    except ValueError as error:
        raise usage(str(error)) from error
    warnings = check_files(made)

    def edit(contexts: Contexts) -> Contexts:
        if name in contexts.by_name and not replaces:
            raise usage(f"there is a context {name!r} already; --replace takes its place")
        current = name if uses else contexts.current
        return Contexts(current=current, by_name={**contexts.by_name, name: made})

    kept = change_contexts(edit)
    for warning in warnings:
        print(f"gpuctl: warning: {clean(warning)}", file=sys.stderr)
    if kept.current != name:
        print(f"gpuctl: `gpuctl context use {name}` makes it the current one", file=sys.stderr)
    _show_one(session, kept, name)


@command()
@click.argument("name", required=False)
@click.option("--none", "none", is_flag=True, help="The default socket again.")
def use(session: Session, name: str | None, none: bool) -> None:
    """Make a context the one that is spoken to unasked."""
    if bool(name) is none:
        raise click.UsageError("name a context, or --none for the default socket")

    def edit(contexts: Contexts) -> Contexts:
        return replace(contexts, current=named(contexts, name).name if name else "")

    kept = change_contexts(edit)
    for variable in ("GPUCTL_ADDRESS", "GPUCTL_CONTEXT"):
        if value := os.environ.get(variable):
            print(
                f"gpuctl: warning: {variable}={clean(value)} is set and goes before it",
                file=sys.stderr,
            )
    if name:
        _show_one(session, kept, name)


@command()
def list_(session: Session) -> None:
    """List the contexts."""
    contexts = read_contexts()
    shown = [
        _Shown(context=each, is_current=each.name == contexts.current)
        for each in contexts.by_name.values()
    ]
    output = session.output
    if output.is_table and not shown:
        print("no contexts; `gpuctl context add` makes one", file=sys.stderr)
    elif output.is_table or output.form == "name":
        _draw(session, shown)
    elif output.form == "jsonl":
        for each in shown:
            output.document(each.plain())
    else:
        output.document({"contexts": [each.plain() for each in shown]})


@command()
@click.argument("name", required=False)
def show(session: Session, name: str | None) -> None:
    """Show one context with its files, the current one unless named."""
    contexts = read_contexts()
    if not name and not contexts.current:
        raise usage("there is no current context; name one (`gpuctl context list`)")
    shown = named(contexts, name or contexts.current)
    if not session.output.is_table:
        _show_one(session, contexts, shown.name)
        return
    said = {"name": shown.name, **shown.settings()}
    width = max(map(len, said))
    session.output.lines(
        f"{key.replace('_', ' ') + ':':<{width + 1}} {clean(value)}" for key, value in said.items()
    )


@command()
@click.argument("name")
def remove(session: Session, name: str) -> None:
    """Forget a context. Its files stay."""

    def edit(contexts: Contexts) -> Contexts:
        named(contexts, name)
        rest = {key: each for key, each in contexts.by_name.items() if key != name}
        return Contexts(current="" if contexts.current == name else contexts.current, by_name=rest)

    change_contexts(edit)
    if session.output.is_table:
        print(f"gpuctl: the context {name} is gone; its files stay", file=sys.stderr)


for _name, _command in (
    ("add", add), ("use", use), ("list", list_), ("show", show), ("remove", remove)
):  # fmt: skip
    context.add_command(_command, _name)


def _absolute(given: dict[str, str]) -> dict[str, str]:
    """Paths as they mean the same from anywhere; a server's name is none."""
    return {
        key: value if key == "server_name" or not value else str(Path(value).absolute())
        for key, value in given.items()
    }


def _show_one(session: Session, contexts: Contexts, name: str) -> None:
    shown = _Shown(context=contexts.by_name[name], is_current=name == contexts.current)
    if session.output.is_table or session.output.form == "name":
        _draw(session, [shown])
    else:
        session.output.document(shown.plain())


def _draw(session: Session, shown: Sequence[_Shown]) -> None:
    output = session.output
    if output.form == "name":
        output.lines(each.context.name for each in shown)
    else:
        output.lines(output.table(_COLUMNS, width=output.room).lines(shown))
