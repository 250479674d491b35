"""`gpuctl orphans`: processes of instances that no record knows, and their end."""

from __future__ import annotations

from collections.abc import Sequence

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.failures import Failure, repeatable, usage
from gpuctl.messages import known, seconds_of, to_plain
from gpuctl.options import command
from gpuctl.session import Session, request_id
from gpuctl.tables import Column
from gpuctl.units import UNKNOWN, compact_size, span_text
from gpud.v1.instances_pb2 import (
    ListOrphansRequest,
    Orphan,
    ReapOrphansRequest,
    ReapOrphansResponse,
)


def _columns(session: Session) -> tuple[Column[Orphan], ...]:
    aliases = device_aliases(session) if session.output.is_table else {}

    def memory(orphan: Orphan) -> str:
        """Of devices where they tell; of the host else."""
        shown = [f"{aliases.get(u.device, u.device)} {compact_size(u.used_bytes)}"
                 for u in orphan.uses]  # fmt: skip
        return ", ".join(shown) or f"ram {compact_size(known(orphan, 'resident_bytes'))}"

    return (
        Column(header="PID", cell=lambda o: str(o.pid), right=True),
        Column(header="INSTANCE", cell=lambda o: o.instance or UNKNOWN),
        Column(header="OURS", cell=lambda o: "yes" if o.provable else "no"),
        Column(header="AGE", cell=lambda o: span_text(_age(session, o)), right=True),
        Column(header="MEMORY", cell=memory),
        Column(header="USER", cell=lambda o: str(o.uid), right=True, wide=True),
        Column(header="COMMAND", cell=lambda o: o.command, shrinks=True),
        Column(header="WHY NOT", cell=lambda o: o.reason, shrinks=True),
    )


def _age(session: Session, orphan: Orphan) -> float:
    return max(0.0, session.now() - seconds_of(orphan.start_time))


@command(named=False)
@click.argument("pids", metavar="[PID]...", nargs=-1, type=click.IntRange(1, 2**22))
@click.option("--reap", is_flag=True, help="End those that are provably ours.")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same result.")
def orphans(
    session: Session,
    pids: tuple[int, ...],
    reap: bool,
    owner: str | None,
    given_id: str | None,
) -> None:
    """List processes that say they are an instance's while gpud knows of no such instance.

    They are what a crash can leave: a state directory that was lost, a supervisor that was killed.
    With --reap those that are provably ours are ended, each with its tree: their secret token
    stands in this gpud's state directory. With PIDs: these, or the reason why not.
    """
    if reap:
        _reap(session, pids, session.owner(owner), given_id or request_id())
        return
    if pids:
        raise usage("PIDs go with --reap; `gpuctl orphans` alone lists all")
    client = session.client
    pages = client.pages(client.instances.ListOrphans, ListOrphansRequest())
    found = [each for page in pages for each in page.orphans]
    session.output.many("orphans", found, _columns(session) if found else (), width=_room(session))


def _reap(session: Session, pids: tuple[int, ...], owner: str, id_: str) -> None:
    request = ReapOrphansRequest(request_id=id_, pids=pids, owner=owner)
    client, output = session.client, session.output
    with repeatable(id_):
        answer = client.call(client.instances.ReapOrphans, request)
    if output.is_table:
        output.many("orphans ended", answer.reaped, _columns(session), width=_room(session))
    else:
        output.document(to_plain(answer))
    _tell_the_rest(answer, named=bool(pids))


def _room(session: Session) -> int | None:
    return session.output.room


def _tell_the_rest(answer: ReapOrphansResponse, *, named: bool) -> None:
    """What was asked for by name and not done, and what would not go, is a failure."""
    left = [*answer.remaining, *(answer.refused if named else ())]
    if left:
        raise Failure(message=f"not ended: {_count(left)}", notes=tuple(_lines(answer)))
    for line in _lines(answer):
        click.echo(f"left alone: {line}", err=True)


def _lines(answer: ReapOrphansResponse) -> list[str]:
    refused = [f"{each.pid}: {each.reason}" for each in answer.refused]
    hanging = "SIGKILL did not end it within 5 s: it hangs in the kernel"
    return [*refused, *(f"{each.pid}: {hanging}" for each in answer.remaining)]


def _count(orphans: Sequence[Orphan]) -> str:
    return "1 process" if len(orphans) == 1 else f"{len(orphans)} processes"
