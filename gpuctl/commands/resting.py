"""`gpuctl sleep` and `wake`: an instance that lets its weights go while nobody needs it."""

from __future__ import annotations

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.commands.instances import instance_columns
from gpuctl.commands.naming import instance_named
from gpuctl.failures import repeatable
from gpuctl.messages import duration
from gpuctl.options import command, span
from gpuctl.session import Session, request_id
from gpud.v1.instances_pb2 import Instance, SleepInstanceRequest, WakeInstanceRequest

# Weights of tens of gigabytes come and go at the speed of the bus.
NEEDED_SECONDS = 300.0


@command()
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option(
    "--level",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="1: the weights go to the host's memory; 2: they are read again when it wakes.",
)
@click.option("--grace", type=span, help="How long requests in flight may go on (default: 5s).")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same sleep.")
def sleep(
    session: Session,
    name: str,
    level: int,
    grace: float | None,
    owner: str | None,
    given_id: str | None,
) -> None:
    """Send a vLLM to sleep that was loaded with sleep_mode. New requests are refused meanwhile.

    Its promise stays whole. A llama-server goes to sleep by itself: --sleep-idle-seconds of load.
    """
    request = SleepInstanceRequest(
        request_id=given_id or request_id(),
        name=instance_named(session, name),
        level=level,
        grace=None if grace is None else duration(grace),
        owner=session.owner(owner),
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(
            client.instances.SleepInstance, request, at_least_seconds=NEEDED_SECONDS
        )
    _print(session, answer.instance)


@command()
@click.argument("name", metavar="INSTANCE|MODEL")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same waking.")
def wake(session: Session, name: str, owner: str | None, given_id: str | None) -> None:
    """Wake an instance that was sent to sleep; done once it serves again."""
    request = WakeInstanceRequest(
        request_id=given_id or request_id(),
        name=instance_named(session, name),
        owner=session.owner(owner),
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(
            client.instances.WakeInstance, request, at_least_seconds=NEEDED_SECONDS
        )
    _print(session, answer.instance)


def _print(session: Session, instance: Instance) -> None:
    aliases = device_aliases(session) if session.output.is_table else {}
    session.output.one(instance, instance_columns(aliases))
