"""`gpuctl run`: a command inside a promise."""

from __future__ import annotations

from typing import Any

import click

from gpuctl.client import Client
from gpuctl.commands.demand import demand_fields, demand_options, given_options, wait
from gpuctl.leases.child import find
from gpuctl.leases.running import Holding, Running, check_same_host, granted
from gpuctl.leases.signals import FORWARDED, caught
from gpuctl.leases.streams import Inbox
from gpuctl.leases.telling import Telling, grants_text
from gpuctl.leases.waiting import Asking, release
from gpuctl.options import Command, command, qualified
from gpuctl.session import Session, request_id
from gpud.v1.reservations_pb2 import Reservation, ReserveRequest

DEFAULT_TTL_SECONDS = 60.0
DEFAULT_WAIT = "10m"


class _RunCommand(Command):
    """Options, `--`, and then words that are the command's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what stands behind `--` whole."""
        asks_for_help = set(args) & set(self.get_help_option_names(ctx))
        if "--" not in args and not asks_for_help and not ctx.resilient_parsing:
            raise click.UsageError(
                "the command stands behind --, as in gpuctl run --vram 8GiB -- python train.py",
                ctx,
            )
        at = args.index("--") if "--" in args else len(args)
        words = args[at + 1 :]
        if "--" in args and not words:
            raise click.UsageError("there is no command behind --", ctx)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["words"] = tuple(words)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """With the command."""
        return [*super().collect_usage_pieces(ctx), "-- CMD..."]


@command(named=False, cls=_RunCommand)
@demand_options
@click.option(
    "--wait", "wait_option", type=wait, metavar="SPAN",
    help=f"Wait for it so long; 0: not at all (default: {DEFAULT_WAIT}).",
)  # fmt: skip
@click.option("--reservation", help="Run inside this one, which stays; instead of --vram.")
@click.option(
    "--on-loss", type=click.Choice(["terminate", "warn"]), default="terminate",
    help="When the promise ends under the command (default: terminate).",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Only errors and what ends the promise, on stderr.")
def run(session: Session, words: tuple[str, ...], **options: Any) -> None:
    """Run a command inside a promise of memory, and release it when the command ends.

    Waits for the memory, sets CUDA_VISIBLE_DEVICES and the rest of the reservation's environment,
    keeps the lease alive, passes signals on, and ends with the command's exit code: 128 + n for
    signal n, 127 if there is no such program, 126 if it cannot be executed.

    When the promise is to end for a more urgent one, the command gets SIGTERM up to 10 s before;
    when it has ended all the same, at once, and SIGKILL 10 s later. --on-loss warn only tells.
    While gpud is away the command goes on. If gpuctl itself is killed by SIGKILL, the command
    goes on too, and the promise ends after its --ttl; so it does when Ctrl-Z stops both that long.
    """
    request = None if options["reservation"] else _request(session, options)
    if request is None and (given := given_options(options)):
        raise click.UsageError(f"--reservation is made already: leave out {', '.join(given)}")
    existing = qualified("reservations", options["reservation"]) if request is None else ""
    find(words[0])
    inbox: Inbox = Inbox()
    telling = Telling(now=session.now, quiet=options["quiet"])
    with caught(inbox, FORWARDED) as mask:
        holding = Holding(
            client=session.client, inbox=inbox, mask=mask, telling=telling, now=session.now
        )
        check_same_host(session.client)
        if request is None:
            inside = granted(session.client, existing)
        else:
            inside = Asking(session.client, request, inbox, telling).obtain()
        if session.settings.verbose:
            telling.say(grants_text(inside))
        try:
            code = Running(holding, inside, on_loss=options["on_loss"]).run(words)
        finally:
            if request is not None:
                _give_back(session.client, inside, holding)
    raise click.exceptions.Exit(code)


def _request(session: Session, options: dict[str, Any]) -> ReserveRequest:
    asked = options["wait_option"]
    seconds = wait(DEFAULT_WAIT) if asked is None else asked
    # Kept alive all the while: a short lease frees the memory soon after gpuctl was killed.
    options = {**options, "ttl": options["ttl"] or DEFAULT_TTL_SECONDS}
    return ReserveRequest(request_id=request_id(), **demand_fields(session, options, seconds))


def _give_back(client: Client, inside: Reservation, holding: Holding) -> None:
    failure = release(client, inside.name, holding.inbox)
    if failure is not None:
        holding.telling.insist(
            f"{inside.name} could not be released, so it ends after its ttl: {failure.message}"
        )
