"""One reading command on every node at once, each in a thread, with what it says kept apart."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpuctl.access.addresses import grpc_target
from gpuctl.access.context import Context
from gpuctl.access.contexts import read_contexts
from gpuctl.failures import EXIT_OTHER, Failure, usage
from gpuctl.main import tell
from gpuctl.messages import to_plain
from gpuctl.render import Output
from gpuctl.session import Session
from gpuctl.tables import Column, clean

if TYPE_CHECKING:
    from google.protobuf.message import Message

Noun = TypeVar("Noun", bound="Message")


class Kept(Output):
    """What a command would have written. `rows`: of a table, with its columns and its width."""

    def __init__(self, form: str, *, color: bool) -> None:
        super().__init__(form if form in {"table", "wide"} else "json", color=color)
        self.text: list[str] = []
        self.plain: dict[str, Any] = {}
        self.rows: list[Any] = []
        self.columns: Sequence[Column[Any]] = ()
        self.field = ""
        self.width: int | None = None

    def one(
        self, noun: Noun, columns: Sequence[Column[Noun]], *, width: int | None = None
    ) -> None:
        """A single noun: in a table a row among those of the other nodes."""
        if self.is_table:
            self.many("", [noun], columns, width=width)
        else:
            self.document(to_plain(noun))

    def many(
        self,
        field: str,
        nouns: Sequence[Noun],
        columns: Sequence[Column[Noun]],
        *,
        width: int | None = None,
    ) -> None:
        """A list, as above."""
        if not self.is_table:
            super().many(field, nouns, columns)
            return
        self.field, self.rows, self.width = field, list(nouns), width
        self.columns = columns

    def document(self, plain: dict[str, Any]) -> None:
        """The answer as it is."""
        self.plain = plain

    def lines(self, lines: Iterable[str]) -> None:
        """Lines, to stand under the name of their node."""
        self.text += lines


@dataclass(kw_only=True)
class _Node:
    """One of them, what it said, and how it failed."""

    context: Context
    said: Kept
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row of one node's table in that of all."""

    node: str
    noun: Any
    columns: Sequence[Column[Any]]


def on_all_nodes(
    session: Session, ctx: click.Context, invoke: Callable[[click.Context], object]
) -> None:
    """Run the command of `ctx` for every context; ends as the first node that failed."""
    contexts = _contexts(session, ctx)
    form, color = session.settings.output, session.colors(sys.stdout)
    nodes = [_Node(context=each, said=Kept(form, color=color)) for each in contexts]
    threads = [
        # One that hangs must not keep gpuctl from ending.
        threading.Thread(target=_ask, args=(node, session, ctx, invoke), daemon=True)
        for node in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _show(session, nodes)
    failures = _tell_failures(nodes, verbose=session.settings.verbose)
    if failures:
        raise click.exceptions.Exit(failures[0].exit_code)


def _contexts(session: Session, ctx: click.Context) -> list[Context]:
    """Every context. Raises Failure where the command line means a single one, or none is kept."""
    settings = session.settings
    if settings.address or settings.context:
        raise usage("--all-nodes asks every context: leave out --address and --context")
    if settings.output == "name":
        raise usage("names are those of one node: with --all-nodes use -o table, json or jsonl")
    if ctx.params.get("follow"):
        raise usage("--follow goes on with one node: leave out --all-nodes, or name a --context")
    kept = read_contexts().by_name.values()
    if not kept:
        raise usage(
            "--all-nodes asks every context, and there is none yet; "
            "`gpuctl context add NAME --address HOST:PORT --ca FILE --cert FILE --key FILE`"
        )
    return list(kept)


def _ask(
    node: _Node, session: Session, ctx: click.Context, invoke: Callable[[click.Context], object]
) -> None:
    try:
        node.context = node.context._replace(address=grpc_target(node.context.address))
        own = session.at(node.context, node.said)
        own_ctx = click.Context(ctx.command, ctx.parent, ctx.info_name, obj=own)
        own_ctx.params = dict(ctx.params)
        try:
            with own_ctx.scope():
                invoke(own_ctx)
        finally:
            own.close()
    except Failure as failure:
        node.failure = failure
    except click.ClickException as error:
        node.failure = usage(error.format_message())
    except Exception as error:  # noqa: BLE001 (one node's trouble is told, and keeps no other)
        node.failure = Failure(message=f"{type(error).__name__}: {error}", exit_code=EXIT_OTHER)


def _show(session: Session, nodes: list[_Node]) -> None:
    output = session.output
    if not output.is_table:
        plain = [_plain(node) for node in nodes]
        if output.form == "jsonl":
            for each in plain:
                output.document(each)
        else:
            output.document({"nodes": plain})
        return
    answered = [node for node in nodes if node.failure is None]
    _show_rows(output, answered)
    shown = [node for node in answered if node.said.text]
    for index, node in enumerate(shown):
        heading = clean(f"== {node.context.name}  {node.context.address}")
        output.lines([*([""] if index else []), heading, *node.said.text])


def _show_rows(output: Output, answered: list[_Node]) -> None:
    """The nodes' tables as one."""
    rows = [
        _Row(node=node.context.name, noun=noun, columns=node.said.columns)
        for node in answered
        for noun in node.said.rows
    ]
    if not rows:
        fields = [node.said.field for node in answered if node.said.field]
        if fields:
            print(f"no {fields[0]}", file=sys.stderr)
        return
    first = next(node.said for node in answered if node.said.rows)
    columns = [_column(index, column) for index, column in enumerate(first.columns)]
    name: Column[_Row] = Column(header="NODE", cell=lambda row: row.node)
    drawn = output.table([name, *columns], width=first.width).lines(rows)
    if first.width is not None and max(map(len, drawn)) > first.width:
        # What gave way gives way wholly: less of it is no word any more.
        columns = [column for column in columns if not column.shrinks]
        drawn = output.table([name, *columns], width=first.width).lines(rows)
    output.lines(drawn)


def _column(index: int, column: Column[Any]) -> Column[_Row]:
    """That of the row's own table in the same place: it knows its node's names for devices."""
    return replace(column, cell=lambda row: row.columns[index].cell(row.noun))


def _plain(node: _Node) -> dict[str, Any]:
    named = {"node": node.context.name, "address": node.context.address}
    failure = node.failure
    if failure is None:
        return {**named, "answer": node.said.plain}
    code = {} if failure.code is None else {"code": failure.code.name}
    return {**named, "error": {**code, "reason": failure.reason, "message": failure.message}}


def _tell_failures(nodes: list[_Node], *, verbose: bool) -> list[Failure]:
    """Each node's on stderr, a note that several share with the last of them alone."""
    failed = [(node.context.name, node.failure) for node in nodes if node.failure is not None]
    for index, (name, failure) in enumerate(failed):
        later = {note for _, other in failed[index + 1 :] for note in other.notes}
        notes = tuple(note for note in failure.notes if note not in later)
        tell(replace(failure, message=f"{name}: {failure.message}", notes=notes), verbose=verbose)
    return [failure for _, failure in failed]
