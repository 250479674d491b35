"""`gpuctl reset`: an instance that was given up, or waits to be started again, starts at once."""

from __future__ import annotations

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.commands.instances import instance_columns, instance_named
from gpuctl.failures import repeatable
from gpuctl.options import command
from gpuctl.session import Session, request_id
from gpud.v1.instances_pb2 import ResetInstanceRequest


@command()
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same reset.")
def reset(session: Session, name: str, owner: str | None, given_id: str | None) -> None:
    """Start again what gpud has given up (RESTART_LOOP, OOM), or what waits in BACKOFF.

    Its failures are forgotten. Of a model: the newest of its instances.
    """
    request = ResetInstanceRequest(
        request_id=given_id or request_id(),
        name=instance_named(session, name),
        owner=session.owner(owner),
    )
    client, output = session.client, session.output
    with repeatable(request.request_id):
        instance = client.call(client.instances.ResetInstance, request).instance
    aliases = device_aliases(session) if output.is_table else {}
    output.one(instance, instance_columns(aliases))
