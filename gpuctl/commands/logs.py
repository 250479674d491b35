"""`gpuctl logs`: what an engine wrote."""

from __future__ import annotations

import click

from gpuctl.commands.instances import instance_named
from gpuctl.options import command, moment
from gpuctl.session import Session
from gpuctl.tables import clean_line
from gpud.v1.instances_pb2 import TailOutputRequest

# As many as gpud keeps at hand.
LINES = click.IntRange(1, 10_000)


@command(named=False)
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option("--lines", type=LINES, help="How many of the last (default: 50; all with --since).")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option(
    "--since", metavar="SPAN|TIME", help="Only the last 5m, or from an RFC 3339 time on."
)
def logs(session: Session, name: str, lines: int | None, follow: bool, since: str | None) -> None:
    """Print what an engine wrote, without its control characters.

    Of a model: what the newest of its instances wrote. --since is to the second.
    """
    client, output = session.client, session.output
    request = TailOutputRequest(
        since=moment("--since", since, session.now()) if since else None,
        instance=instance_named(session, name),
        lines=lines or 0,
        follow=follow,
    )
    with client.stream(client.instances.TailOutput, request) as answers:
        for answer in answers:
            if output.is_table:
                output.lines(clean_line(line) for line in answer.lines)
            else:
                output.streamed(answer)
