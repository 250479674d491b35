"""`gpuctl reset`: an instance that was given up, or waits to be started again, starts at once."""

from __future__ import annotations

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.commands.instances import instance_columns
from gpuctl.commands.naming import instance_named
from gpuctl.failures import repeatable
from gpuctl.options import command
from gpuctl.session import Session, request_id
from gpud.v1.instances_pb2 import Instance, InstanceState, ResetInstanceRequest

_GIVEN_UP = frozenset({"RESTART_LOOP", "OOM", "MODEL_GONE"})


@command()
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same reset.")
def reset(session: Session, name: str, owner: str | None, given_id: str | None) -> None:
    """Start again what gpud has given up, or what waits in BACKOFF.

    Given up is what failed too often (RESTART_LOOP, OOM), what serves another file now, and what
    lost its model's entry (MODEL_GONE): it is loaded anew under its name. Its failures are
    forgotten. Of a model: its instance that can be reset, of those that failed the newest.
    """
    request = ResetInstanceRequest(
        request_id=given_id or request_id(),
        name=instance_named(session, name, _claim),
        owner=session.owner(owner),
    )
    client, output = session.client, session.output
    with repeatable(request.request_id):
        instance = client.call(client.instances.ResetInstance, request).instance
    aliases = device_aliases(session) if output.is_table else {}
    output.one(instance, instance_columns(aliases))


def _claim(instance: Instance) -> int:
    """How much sense a reset of it makes: what waits, what was given up, what failed, the rest."""
    if instance.state == InstanceState.INSTANCE_STATE_BACKOFF:
        return 3
    if instance.state != InstanceState.INSTANCE_STATE_FAILED:
        return 0
    return 2 if instance.failure.reason in _GIVEN_UP else 1
