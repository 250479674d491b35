"""`gpuctl alerts`: what is wrong now, told as a list or as a check; acknowledged, silenced."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from gpuctl.client import PAGE_SIZE
from gpuctl.commands.devices import device_aliases
from gpuctl.commands.events import event_columns, follow_events
from gpuctl.failures import Failure, repeatable, usage
from gpuctl.glance.trouble import OK, UNKNOWN, alert_subject, gravity, is_calm, is_open
from gpuctl.glance.words import delivery_text
from gpuctl.messages import duration, seconds_of, to_plain, word
from gpuctl.options import command, enum_choice, enum_number, qualified, span
from gpuctl.session import Session, request_id
from gpuctl.tables import Column, clean, moment_text
from gpuctl.units import span_text
from gpud.v1.alerts_pb2 import (
    AcknowledgeAlertRequest,
    Alert,
    AlertSeverity,
    AlertState,
    ListAlertsRequest,
    Silence,
    SilenceAlertsRequest,
)
from gpud.v1.node_pb2 import GetNodeRequest, ListEventsRequest, Node, WatchEventsRequest

_CHECK_WORDS = ("OK", "WARNING", "CRITICAL")
_MOST_TOLD = 5
_FAMILY = "alert"  # of events

_FIRES = AlertState.ALERT_STATE_FIRING


def _id(alert: Alert) -> str:
    return alert.name.removeprefix("alerts/")


def _state(alert: Alert) -> str:
    """With what keeps it from being sent."""
    silenced = alert.state == _FIRES and alert.HasField("silenced_until")
    return "SILENCED" if silenced else word(alert, "state")


def _sent(alert: Alert) -> str:
    """How telling each sink went."""
    return ", ".join(f"{each.sink} {delivery_text(each)}" for each in alert.deliveries)


def alert_columns(now: float) -> tuple[Column[Alert], ...]:
    """Of a list of alerts, at a moment in seconds since the epoch."""

    def since(alert: Alert) -> str:
        return span_text(max(0.0, now - seconds_of(alert.since)))

    return (
        Column(header="SEVERITY", cell=lambda a: word(a, "severity")),
        Column(header="STATE", cell=_state),
        Column(header="SINCE", cell=since, right=True),
        Column(header="WHAT", cell=lambda a: a.summary, wraps=True),
        Column(header="ALERT", cell=_id, drops=True),
        Column(header="DO", cell=lambda a: a.remedy, wide=True),
        Column(header="BY", cell=lambda a: a.acknowledged_by, wide=True),
        Column(header="COMMENT", cell=lambda a: a.acknowledge_comment, wide=True),
        Column(header="SENT", cell=_sent, wide=True),
    )


@command(fans_out=True)
@click.option("--all", "everything", is_flag=True, help="What is over, too (for an hour).")
@click.option("--severity", type=enum_choice(AlertSeverity), help="So grave at least.")
@click.option("--check", "is_check", is_flag=True, help="As a check: exit 0, 1, 2 or 3.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what changes, until Ctrl-C.")
def _list(
    session: Session, everything: bool, severity: str | None, is_check: bool, follow: bool
) -> None:
    if is_check and (follow or everything):
        raise usage("--check tells how things stand now; leave out --follow and --all")
    request = ListAlertsRequest(
        include_resolved=everything,
        min_severity=enum_number(AlertSeverity, severity),
        page_size=PAGE_SIZE,
    )
    if is_check:
        _check(session, request)
        return
    # First where the journal stands: nothing that happens meanwhile is left out.
    after = _newest_sequence(session) if follow else 0
    _show(session, *_listed(session, request))
    if follow:
        _follow(session, after)


@click.pass_context
def _alerts(ctx: click.Context, /, **_options: Any) -> None:
    """List what is wrong now, the gravest first; acknowledge it, or silence it for a while.

    With --check it ends with 0 for nothing (or only INFO), 1 where the gravest is a WARNING, 2
    where it is CRITICAL, and 3 where gpud does not tell. What is acknowledged or silenced does
    not count; a node that is not READY does.
    """
    if ctx.invoked_subcommand is None:
        _list.invoke(ctx)


alerts = click.Group(
    name="alerts",
    callback=_alerts,
    help=_alerts.__doc__,
    params=_list.params,
    invoke_without_command=True,
)


def _listed(session: Session, request: ListAlertsRequest) -> tuple[list[Alert], list[Silence]]:
    client = session.client
    pages = list(client.pages(client.telemetry.ListAlerts, request))
    return [each for page in pages for each in page.alerts], list(pages[0].silences)


def _show(session: Session, found: Sequence[Alert], silences: Sequence[Silence]) -> None:
    output = session.output
    if output.form in {"json", "yaml"}:
        told = {"alerts": found, "silences": silences}
        output.document({name: [to_plain(each) for each in many] for name, many in told.items()})
        return
    output.many("alerts", found, alert_columns(session.now()), width=output.room)
    if output.is_table:
        output.lines(map(clean, _silence_lines(silences)))


def _silence_lines(silences: Sequence[Silence]) -> Iterator[str]:
    for each in silences:
        why = f": {each.comment}" if each.comment else ""
        yield (
            f"silenced until {moment_text(each.end_time)}: {each.rule or 'every rule'} of "
            f"{each.subject or 'everything'}, by {each.actor}{why}"
        )


def _newest_sequence(session: Session) -> int:
    client = session.client
    request = ListEventsRequest(type=_FAMILY, page_size=1)
    newest = client.call(client.node.ListEvents, request).events
    return newest[0].sequence if newest else 0


def _follow(session: Session, after: int) -> None:
    """What changes, as events: it may be over before anybody could list it."""
    output = session.output
    aliases = device_aliases(session) if output.is_table else {}
    table = output.table(event_columns(aliases), width=output.room)
    request = WatchEventsRequest(type=_FAMILY, after_sequence=after)
    follow_events(session, table, request, header=True)


def _check(session: Session, request: ListAlertsRequest) -> None:
    """One line that says all, and the exit code."""
    client = session.client
    try:
        found, _ = _listed(session, request)
        node = client.call(client.node.GetNode, GetNodeRequest()).node
    except Failure as failure:
        print(f"UNKNOWN - {clean(failure.message)}")
        raise replace(failure, exit_code=UNKNOWN) from failure
    code = gravity(node, found)
    if session.output.is_table:
        says = "; ".join(filter(None, (_node_text(node), _open_text(found)))) or _calm_text(found)
        print(f"{_CHECK_WORDS[code]} - {says}")
    else:
        plain = [to_plain(each) for each in found if is_open(each)]
        session.output.document({"status": _CHECK_WORDS[code], "alerts": plain})
    sys.stdout.flush()
    if code != OK:
        raise click.exceptions.Exit(code)


def _node_text(node: Node) -> str:
    """Empty for one that is as it should be."""
    if is_calm(node):
        return ""
    why = f" ({clean(node.state_reason)})" if node.state_reason else ""
    return f"the node is {word(node, 'state')}{why}"


def _open_text(found: Sequence[Alert]) -> str:
    """How many are open and which, the gravest first; empty for none."""
    grave = [each for each in found if is_open(each)]
    if not grave:
        return ""
    words = [word(each, "severity").lower() for each in grave]
    counts = [f"{words.count(name)} {name}" for name in ("critical", "warning") if name in words]
    told = "; ".join(clean(each.summary) for each in grave[:_MOST_TOLD])
    more = f"; and {len(grave) - _MOST_TOLD} more" if len(grave) > _MOST_TOLD else ""
    return f"{', '.join(counts)}: {told}{more}"


def _calm_text(found: Sequence[Alert]) -> str:
    """That nothing is wrong, or nothing that nobody knows of."""
    states = [_state(each) for each in found]
    known = [
        f"{states.count(state)} {state.lower()}"
        for state in ("ACKNOWLEDGED", "SILENCED")
        if state in states
    ]
    return f"nothing new ({', '.join(known)})" if known else "nothing is wrong"


def _named(session: Session, name: str) -> str:
    """An alert by its id, or by its rule or what it is about. Raises Failure for several."""
    found, _ = _listed(session, ListAlertsRequest(page_size=PAGE_SIZE))
    meant = [each.name for each in found if name in {_id(each), each.rule, alert_subject(each)}]
    if len(meant) > 1:
        raise usage(f"{name!r} is said of several: write {' or '.join(meant)}")
    return meant[0] if meant else qualified("alerts", name)


@command()
@click.argument("name", metavar="ALERT|RULE|SUBJECT")
@click.option("-m", "--message", "comment", default="", help="Shown with it, and in the journal.")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same answer.")
def ack(session: Session, name: str, comment: str, given_id: str | None) -> None:
    """Say that you know: nobody is sent it again while it lasts, unless it becomes graver."""
    request = AcknowledgeAlertRequest(
        request_id=given_id or request_id(),
        name=_named(session, name),
        comment=comment,
        owner=session.owner(),
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(client.telemetry.AcknowledgeAlert, request)
    columns = alert_columns(session.now())
    session.output.one(answer.alert, columns, width=session.output.room)


@command(named=False)
@click.option("--rule", default="", help="Of this rule (default: every rule).")
@click.option("--subject", default="", help="Of gpu0, instances/ID, node … (default: everything).")
@click.option("--for", "seconds", type=span, required=True, help="For so long; 0s ends it.")
@click.option("--everything", is_flag=True, help="Every rule of everything.")
@click.option("-m", "--message", "comment", default="", help="Shown with it, and in the journal.")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same answer.")
def silence(
    session: Session,
    rule: str,
    subject: str,
    seconds: float,
    everything: bool,
    comment: str,
    given_id: str | None,
) -> None:
    """Send nobody what a rule says of a subject, for a while; it is listed all the same."""
    if everything is bool(rule or subject):
        raise usage("say --rule, --subject or both; or --everything, for every alert there is")
    request = SilenceAlertsRequest(
        request_id=given_id or request_id(),
        rule=rule,
        subject=subject,
        duration=duration(seconds),
        comment=comment,
        owner=session.owner(),
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(client.telemetry.SilenceAlerts, request)
    if session.output.is_table:
        lines = list(map(clean, _silence_lines(answer.silences)))
        session.output.lines(lines or ["nothing is silenced"])
    else:
        session.output.document({"silences": [to_plain(each) for each in answer.silences]})


alerts.add_command(ack, "ack")
alerts.add_command(silence, "silence")
