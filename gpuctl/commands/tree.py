"""The tree of commands: a command's file is imported when the command is used."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Any

import click

from gpuctl.options import global_options

# Command to the file under gpuctl/commands that declares it, in the order that --help shows.
_FILES = {
    "status": "node",
    "devices": "devices",
    "top": "top",
    "watch": "devices",
    "reserve": "reservations",
    "renew": "reservations",
    "release": "reservations",
    "reservations": "reservations",
    "explain": "explain",
    "run": "run",
    "models": "models",
    "estimate": "models",
    "load": "instances",
    "unload": "instances",
    "reset": "healing",
    "sleep": "resting",
    "wake": "resting",
    "orphans": "orphans",
    "instances": "instances",
    "logs": "logs",
    "bench": "bench",
    "show": "show",
    "events": "events",
    "alerts": "alerts",
    "forecast": "forecast",
    "history": "history",
    "cordon": "devices",
    "uncordon": "devices",
    "drain": "drain",
    "resume": "drain",
    "reload": "reloading",
    "context": "context",
    "version": "node",
}
_ALIASES = {"ps": "instances"}


class LazyGroup(click.Group):
    """Finds commands in `_FILES`; importing one costs nothing to the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return list(_FILES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias."""
        name = _ALIASES.get(cmd_name, cmd_name)
        if name not in _FILES:
            return None
        module = importlib.import_module(f"gpuctl.commands.{_FILES[name]}")
        found: click.Command = getattr(module, name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; an unknown name gets the nearest known one as advice."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], [*_FILES, *_ALIASES], n=1)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"there is no command {args[0]!r}{advice}")
        return super().resolve_command(ctx, args)


def _gpuctl(**_options: Any) -> None:
    """See, promise and use the memory of this host's devices, through gpud."""


gpuctl = LazyGroup(
    name="gpuctl",
    callback=_gpuctl,
    help=_gpuctl.__doc__,
    params=global_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
