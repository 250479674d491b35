"""`gpuctl reload`: gpud reads its configuration anew."""

from __future__ import annotations

import click

from gpuctl.messages import word
from gpuctl.options import command
from gpuctl.session import Session
from gpuctl.tables import Column
from gpud.v1.node_pb2 import ConfigChange, ReloadConfigRequest

_COLUMNS: tuple[Column[ConfigChange], ...] = (
    Column(header="KEY", cell=lambda change: change.key),
    Column(header="CHANGE", cell=lambda change: word(change, "kind")),
    Column(
        header="COUNTS", cell=lambda change: "after a restart" if change.needs_restart else "now"
    ),
)


@command(named=False)
@click.option("--validate-only", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--owner", help="Who asks, as an admin says (default: you).")
def reload(session: Session, validate_only: bool, owner: str | None) -> None:
    """Take over what changed in the configuration, and can change while gpud runs.

    One that cannot be used is refused whole, and the one in force stays so.
    """
    request = ReloadConfigRequest(validate_only=validate_only, owner=session.owner(owner))
    client = session.client
    answer = client.call(client.node.ReloadConfig, request)
    session.output.many("changes", answer.changes, _COLUMNS)
