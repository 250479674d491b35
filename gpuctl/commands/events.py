"""`gpuctl events`: what happened, who caused it and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice

import click
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.client import PAGE_SIZE
from gpuctl.commands.devices import device_aliases
from gpuctl.failures import usage
from gpuctl.following import following
from gpuctl.options import COUNT, command, moment
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean, moment_text
from gpud.v1.node_pb2 import Event, ListEventsRequest, WatchEventsRequest

_DEFAULT_LIMIT = 50


def _details(event: Event) -> str:
    return " ".join(f"{key}={event.details[key]}" for key in sorted(event.details))


def _call_text(event: Event) -> str:
    """The call it comes of: `Release`, `Release 4f1c`, `Release 4f1c by root`."""
    method = event.method.rpartition("/")[2]
    by = f"by {event.caller}" if event.caller not in ("", event.actor) else ""
    return " ".join(part for part in (method, event.request_id, by) if part)


def event_columns(aliases: Mapping[str, str]) -> tuple[Column[Event], ...]:
    """Of a list of events. `aliases`: gpu0 for devices/{uuid}."""

    def subject(event: Event) -> str:
        return aliases.get(event.subject) or event.subject.partition("/")[2] or event.subject

    return (
        Column(header="SEQUENCE", cell=lambda e: str(e.sequence), right=True, wide=True),
        Column(header="TIME", cell=lambda e: moment_text(e.time)),
        Column(header="TYPE", cell=lambda e: e.type),
        Column(header="SUBJECT", cell=subject),
        Column(header="ACTOR", cell=lambda e: e.actor, drops=True),
        Column(header="REASON", cell=lambda e: e.reason, wraps=True),
        Column(header="NAME", cell=lambda e: e.subject, wide=True),
        Column(header="CALL", cell=_call_text, wide=True),
        Column(header="DETAILS", cell=_details, wide=True),
    )


@command(named=False, fans_out=True)
@click.option("--type", "event_type", metavar="TYPE", help="Of this type, or family, as device.")
@click.option("--subject", metavar="NAME", help="Of gpu0, of r-1 or reservations/r-1, of node …")
@click.option("--since", metavar="SPAN|TIME", help="Not older than 10m, or than 2026-11-20T21:00.")
@click.option("--until", metavar="SPAN|TIME", help="Older than 10m, or than 2026-11-20T21:00.")
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
    subject = narrowed["subject"]
    aliases = device_aliases(session) if subject or session.output.is_table else {}
    if subject:
        request.subject = _subject(session, subject, aliases)
    newest_first = _newest(session, request, limit or _DEFAULT_LIMIT)
    if request.type and not newest_first:
        _tell_types(session, request.type)
    table = session.output.table(event_columns(aliases), width=session.output.room)
    if follow:
        _show_first(session, table, newest_first)
        follow_events(session, table, _after(request, newest_first), header=not newest_first)
    else:
        _show(session, event_columns(aliases), newest_first)


def _asked(session: Session, narrowed: Mapping[str, str | None]) -> ListEventsRequest:
    since, until, now = narrowed["since"], narrowed["until"], session.now()
    return ListEventsRequest(
        type=(narrowed["event_type"] or "").rstrip(".*"),
        request_id=narrowed["request_id"] or "",
        since=moment("--since", since, now) if since else None,
        until=moment("--until", until, now) if until else None,
    )


def _subject(session: Session, name: str, aliases: Mapping[str, str]) -> str:
    """The whole name of what an alias or an id is of. Raises Failure where nothing is called so.

    An id may be of what is gone: it is looked up in the journal itself.
    """
    bare = name.removeprefix("devices/")
    for device, alias in aliases.items():
        if bare in {alias, device.removeprefix("devices/")}:
            return device
    if "/" in name:
        return name
    told = {event.subject for event in _of_late(session)} | {"node"}
    found = sorted(each for each in told if name in {each, each.partition("/")[2]})
    if len(found) == 1:
        return found[0]
    if found:
        raise usage(f"{name!r} could be several things: write {' or '.join(found)}")
    raise usage(
        f"{name!r} names no device, and nothing that there was of late; write gpu0, node, or a "
        "whole name, as reservations/r-1"
    )


def _of_late(session: Session) -> list[Event]:
    client = session.client
    return list(client.call(client.node.ListEvents, ListEventsRequest(page_size=PAGE_SIZE)).events)


def _tell_types(session: Session, asked: str) -> None:
    """Which there are, of a type that there has not been."""
    types = {event.type for event in _of_late(session)}
    families = {each.partition(".")[0] for each in types}
    if asked in types | families:
        return  # but not then, or not of that
    alike = sorted(each for each in types if asked in each) or sorted(families)
    there = f"; there is {', '.join(alike)}" if alike else ""
    print(f"gpuctl: no event of type {clean(asked)} of late{clean(there)}", file=sys.stderr)


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


def _show(session: Session, columns: tuple[Column[Event], ...], newest_first: list[Event]) -> None:
    """In tables and lines the oldest first: a journal is read downwards."""
    output = session.output
    reads_down = output.is_table or output.form == "jsonl"
    told = newest_first[::-1] if reads_down else newest_first
    output.many("events", told, columns, width=output.room)


def _show_first(session: Session, table: Table[Event], newest_first: list[Event]) -> None:
    """Of those that are followed."""
    output, downwards = session.output, newest_first[::-1]
    if not output.is_table:
        for event in downwards:
            output.streamed(event)
    elif downwards:
        output.lines(table.lines(downwards))


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


def follow_events(
    session: Session, table: Table[Event], request: WatchEventsRequest, *, header: bool
) -> None:
    """Show events as they come, over ends of connections; `header`: with headers before them."""
    client, output = session.client, session.output
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
