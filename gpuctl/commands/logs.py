"""`gpuctl logs`: what an engine wrote."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import click

from gpuctl.client import Client
from gpuctl.commands.naming import instance_named
from gpuctl.following import beyond, following
from gpuctl.options import command, moment
from gpuctl.session import Session
from gpuctl.tables import clean_line
from gpud.v1.instances_pb2 import TailOutputRequest, TailOutputResponse

# As many as gpud keeps at hand.
_MOST_LINES = 10_000
LINES = click.IntRange(1, _MOST_LINES)
# By so many of the lines that were shown last it is found where to go on.
_REMEMBERED_LINES = 1000


@command(named=False)
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option("--lines", type=LINES, help="How many of the last (default: 50; all with --since).")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option(
    "--since", metavar="SPAN|TIME", help="Only the last 5m, or from 2026-11-20T21:00 on."
)
def logs(session: Session, name: str, lines: int | None, follow: bool, since: str | None) -> None:
    """Print what an engine wrote, without its control characters.

    Of a model: what its live instance wrote; if none lives, the newest. --since is to the second.
    """
    client, output = session.client, session.output
    request = TailOutputRequest(
        since=moment("--since", since, session.now()) if since else None,
        instance=instance_named(session, name),
        lines=lines or 0,
        follow=follow,
    )
    for answer in _written(client, request):
        if output.is_table:
            output.lines(clean_line(line) for line in answer.lines)
        else:
            output.streamed(answer)


def _written(client: Client, request: TailOutputRequest) -> Iterator[TailOutputResponse]:
    """What an engine wrote; over the end of a connection no line twice, and none left out."""
    seen: deque[str] = deque(maxlen=_REMEMBERED_LINES)
    begins = True

    def asked() -> TailOutputRequest:
        nonlocal begins
        begins = True
        if seen:
            request.lines = _MOST_LINES
        return request

    with following(client, client.instances.TailOutput, asked) as answers:
        for answer in answers:
            lines = beyond(list(seen), answer.lines) if begins else answer.lines
            begins = False
            seen.extend(lines)
            yield TailOutputResponse(lines=lines)
