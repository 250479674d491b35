"""`gpuctl status`, `version` and `events`: the host as a whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice

import click
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.client import PAGE_SIZE
from gpuctl.commands import status as status_file
from gpuctl.failures import Failure, usage
from gpuctl.following import following
from gpuctl.options import COUNT, command, moment
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean, moment_text
from gpud import __version__
from gpud.v1.node_pb2 import Event, GetNodeRequest, ListEventsRequest, WatchEventsRequest

_DEFAULT_LIMIT = 50


@command(named=False, fans_out=True)
@click.option("--check", is_flag=True, help="End with 1 for WARNING, 2 for CRITICAL.")
def status(session: Session, check: bool) -> None:
    """Show the node, what is wrong with it, its devices, the queue and what runs.

    In the bars █ is in use inside a promise, ▒ promised and not in use, ▓ in use outside any
    promise, ▚ leaked, · free.
    """
    gravity = status_file.print_status(session)
    if check and gravity:
        raise Failure(message="not all is well on this node; above is what", exit_code=gravity)


@command(named=False)
def version(session: Session) -> None:
    """Tell the version of gpuctl and, if it answers, of gpud."""
    client = session.client
    plain: dict[str, dict[str, str]] = {"client": {"version": __version__}}
    lines = [f"gpuctl {__version__}"]
    try:
        node = client.call(client.node.GetNode, GetNodeRequest()).node
    except Failure as failure:
        lines.append(f"gpud   - ({clean(failure.message)})")
    else:
        plain["daemon"] = {
            "version": node.version, "hostname": node.hostname, "address": client.address
        }  # fmt: skip
        lines.append(f"gpud   {clean(node.version)} on {clean(node.hostname)}, {client.address}")
    if session.output.is_table:
        session.output.lines(lines)
    else:
        session.output.document(plain)


def _details(event: Event) -> str:
    return " ".join(f"{key}={event.details[key]}" for key in sorted(event.details))


def _call_text(event: Event) -> str:
    """The call it comes of: `Release`, `Release 4f1c`, `Release 4f1c by root`."""
    method = event.method.rpartition("/")[2]
    by = f"by {event.caller}" if event.caller not in ("", event.actor) else ""
    return " ".join(part for part in (method, event.request_id, by) if part)


EVENT_COLUMNS: tuple[Column[Event], ...] = (
    Column(header="SEQUENCE", cell=lambda e: str(e.sequence), right=True, wide=True),
    Column(header="TIME", cell=lambda e: moment_text(e.time)),
    Column(header="TYPE", cell=lambda e: e.type),
    Column(header="SUBJECT", cell=lambda e: e.subject),
    Column(header="ACTOR", cell=lambda e: e.actor),
    Column(header="REASON", cell=lambda e: e.reason),
    Column(header="CALL", cell=_call_text, wide=True),
    Column(header="DETAILS", cell=_details, wide=True),
)


@command(named=False, fans_out=True)
@click.option("--type", "event_type", metavar="TYPE", help="This type, or all that begin with it.")
@click.option("--subject", metavar="NAME", help="Of this resource, as reservations/r-1.")
@click.option("--since", metavar="SPAN|TIME", help="Not older than 10m, or than an RFC 3339 time.")
@click.option("--until", metavar="SPAN|TIME", help="Older than 10m, or than an RFC 3339 time.")
@click.option("--request", "request_id", metavar="ID", help="Of calls with this --request-id.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option("--limit", type=COUNT, help=f"The newest so many (default: {_DEFAULT_LIMIT}).")
def events(session: Session, follow: bool, limit: int | None, **narrowed: str | None) -> None:
    """Tell what happened, who caused it and why; the newest last.

    JSON and YAML documents keep gpud's own order, the newest first. Of a journal that has let go
    of what was asked for, stderr says where it begins.
    """
    if follow and narrowed["until"]:
        raise usage("--until is for what was, -f for what comes; give one of them")
    request = _asked(session, narrowed)
    newest_first = _newest(session, request, limit or _DEFAULT_LIMIT)
    table = session.output.table(EVENT_COLUMNS)
    _show_listed(session, table, newest_first, as_stream=follow)
    if follow:
        _follow(session, table, _after(request, newest_first))


def _asked(session: Session, narrowed: Mapping[str, str | None]) -> ListEventsRequest:
    since, until, now = narrowed["since"], narrowed["until"], session.now()
    return ListEventsRequest(
        type=narrowed["event_type"] or "",
        subject=narrowed["subject"] or "",
        request_id=narrowed["request_id"] or "",
        since=moment("--since", since, now) if since else None,
        until=moment("--until", until, now) if until else None,
    )


def _newest(session: Session, request: ListEventsRequest, limit: int) -> list[Event]:
    client = session.client
    request.page_size = min(limit, PAGE_SIZE)
    found: list[Event] = []
    for page in client.pages(client.node.ListEvents, request):
        found += islice(page.events, limit - len(found))
        if len(found) == limit:
            return found
        is_cut = page.oldest_sequence > 1 and request.HasField("since")
        if is_cut and not page.next_page_token and _is_before(request.since, page.oldest_time):
            begins = f"the journal begins at {moment_text(page.oldest_time)}"
            print(f"gpuctl: {begins}: what was before is no longer kept", file=sys.stderr)
    return found


def _is_before(one: Timestamp, other: Timestamp) -> bool:
    return (one.seconds, one.nanos) < (other.seconds, other.nanos)


def _show_listed(
    session: Session, table: Table[Event], newest_first: list[Event], *, as_stream: bool
) -> None:
    """In tables and lines the oldest first: a journal is read downwards."""
    output, downwards = session.output, newest_first[::-1]
    if not as_stream:
        reads_down = output.is_table or output.form == "jsonl"
        output.many("events", downwards if reads_down else newest_first, EVENT_COLUMNS)
    elif output.is_table and downwards:
        output.lines(table.lines(downwards))
    elif not output.is_table:
        for event in downwards:
            output.streamed(event)


def _after(listed: ListEventsRequest, newest_first: list[Event]) -> WatchEventsRequest:
    """A watch that goes on where the list ended: nothing twice, nothing left out."""
    request = WatchEventsRequest(
        type=listed.type, subject=listed.subject, request_id=listed.request_id
    )
    if newest_first or not listed.HasField("since"):
        request.after_sequence = newest_first[0].sequence if newest_first else 0
    else:
        request.since.CopyFrom(listed.since)
    return request


def _follow(session: Session, table: Table[Event], request: WatchEventsRequest) -> None:
    client, output = session.client, session.output
    header = not request.after_sequence
    with following(client, client.node.WatchEvents, lambda: request) as answers:
        for answer in answers:
            if output.is_table:
                output.lines(table.lines([answer.event], header=header))
                header = False
            else:
                output.streamed(answer.event)
            # Where to go on should the connection end.
            request.ClearField("since")
            request.after_sequence = answer.event.sequence
