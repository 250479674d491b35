"""`gpuctl status` and `version`: the host as a whole."""

from __future__ import annotations

from dataclasses import replace

import click

from gpuctl.commands import status as status_file
from gpuctl.failures import Failure
from gpuctl.glance.trouble import UNKNOWN
from gpuctl.options import command
from gpuctl.session import Session
from gpuctl.tables import clean
from gpud import __version__
from gpud.v1.node_pb2 import GetNodeRequest


@command(named=False, fans_out=True)
@click.option("--check", is_flag=True, help="As a check: exit 0, 1, 2 or 3.")
def status(session: Session, check: bool) -> None:
    """Show the node, what is wrong with it, its devices, the queue and what runs.

    In the bars █ is in use inside a promise, ▒ promised and not in use, ▓ in use outside any
    promise, ▚ leaked, · free.

    With --check it ends as `gpuctl alerts --check` does.
    """
    try:
        gravity = status_file.print_status(session)
    except Failure as failure:
        if not check:
            raise
        raise replace(failure, exit_code=UNKNOWN) from failure
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
