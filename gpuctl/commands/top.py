"""`gpuctl top`: the node on a whole screen, as it changes."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

import click

from gpuctl.failures import Failure, usage
from gpuctl.options import command, span
from gpuctl.session import Session
from gpud.v1.node_pb2 import GetNodeRequest


@command(named=False)
@click.option("--interval", type=span, default="1s", help="Time between looks (default: 1s).")
@click.option("--readonly", is_flag=True, help="Look alone: no key changes anything.")
def top(session: Session, interval: float, readonly: bool) -> None:
    """Show devices, instances, reservations, the queue and alerts on a whole screen.

    Its keys sort, filter and look closely; and, each after a question, cordon a device, unload an
    instance, release a reservation, acknowledge an alert. `?` tells which they are.
    """
    _check_terminal(session)
    # An address that nobody answers at is told as everywhere, before the screen is taken.
    session.client.call(session.client.node.GetNode, GetNodeRequest())
    app = _app(session, interval, readonly=readonly)
    app.run()
    if app.refused is not None:
        raise app.refused
    if app.return_code:
        raise click.exceptions.Exit(app.return_code)


def _check_terminal(session: Session) -> None:
    if not session.output.is_table:
        raise usage("top draws a screen; `gpuctl watch -o jsonl` tells the same to programs")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage("top needs a terminal; `gpuctl watch` writes lines")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise usage("top needs a terminal that can move its cursor (TERM is dumb or not set)")
    if find_spec("textual") is None:
        raise Failure(
            message="cannot draw a screen: the package textual is not installed; install gpud "
            "with its extra `top` (`pip install '.[top]'` in its folder), or use `gpuctl watch`"
        )


def _app(session: Session, interval: float, *, readonly: bool) -> Any:
    # Textual reads them. Of NO_COLOR any value counts there, an empty one too; and a size that is
    # fixed by the environment would be kept when the terminal's changes.
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        os.environ.pop(name, None)
    if session.settings.no_color:
        os.environ["NO_COLOR"] = "1"
    from gpuctl.top.app import Top

    return Top(session, interval, readonly=readonly, heeds_signals=True)
