"""`gpuctl load`, `unload` and `instances`: engines run inside promises."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from gpuctl.commands.demand import wait
from gpuctl.commands.devices import device_aliases
from gpuctl.commands.models import footprint_lines
from gpuctl.commands.naming import instance_or_none
from gpuctl.commands.progress import Step, phases
from gpuctl.commands.serving import METRIC_COLUMNS, REQUESTS
from gpuctl.commands.status import INSTANCE_COLUMNS
from gpuctl.failures import EXIT_INTERRUPTED, EXIT_WAITED_OUT, Failure, repeatable
from gpuctl.glance.words import is_stopped, overuse_text
from gpuctl.messages import duration, known, seconds_of, word
from gpuctl.options import (
    command,
    enum_choice,
    enum_number,
    label,
    model_options,
    options_message,
    qualified,
    span,
)
from gpuctl.session import Session, request_id
from gpuctl.tables import Column, clean
from gpuctl.units import size_text, span_text
from gpud.v1.instances_pb2 import (
    Instance,
    ListInstancesRequest,
    LoadModelRequest,
    LoadModelResponse,
    LoadPhase,
    UnloadModelRequest,
    UnloadModelResponse,
    UnloadPhase,
)
from gpud.v1.reservations_pb2 import Priority, Sharing

Progress = TypeVar("Progress", LoadModelResponse, UnloadModelResponse)


def _load_time(instance: Instance) -> str:
    took = instance.HasField("load_duration")
    return span_text(seconds_of(instance.load_duration)) if took else "-"


def _tokens_per_second(instance: Instance) -> str:
    measured = known(instance, "tokens_per_second")
    return "-" if measured is None else f"{measured:.1f}"


def _why(instance: Instance) -> str:
    if instance.failure.message:
        return instance.failure.message
    told = filter(None, (overuse_text(instance), instance.health.reason))
    return "; ".join(told) or instance.last_exit.meaning or instance.wait_reason


def _health(instance: Instance) -> str:
    return word(instance.health, "verdict") if instance.HasField("health") else "-"


def instance_columns(aliases: dict[str, str]) -> tuple[Column[Instance], ...]:
    """The columns of an instance; `aliases` gives devices the short names people know."""

    def devices(instance: Instance) -> str:
        return ",".join(aliases.get(d, d.removeprefix("devices/")) for d in instance.devices)

    return (
        *INSTANCE_COLUMNS[:3],
        Column(header="DEVICES", cell=devices),
        *INSTANCE_COLUMNS[3:4],
        REQUESTS,
        *INSTANCE_COLUMNS[4:],
        Column(header="HEALTH", cell=_health, wide=True),
        Column(header="RESTARTS", cell=lambda i: str(i.restarts), right=True, wide=True),
        Column(header="PID", cell=lambda i: str(known(i, "pid") or "-"), right=True, wide=True),
        Column(header="LOADED IN", cell=_load_time, right=True, wide=True),
        Column(header="WARMUP TOK/S", cell=_tokens_per_second, right=True, wide=True),
        *METRIC_COLUMNS,
        Column(header="RESERVATION", cell=lambda i: i.reservation, wide=True),
        Column(header="OWNER", cell=lambda i: i.owner, wide=True),
        Column(header="WHY", cell=_why, wide=True),
    )


def _columns(session: Session) -> tuple[Column[Instance], ...]:
    return instance_columns(device_aliases(session) if session.output.is_table else {})


@command()
@click.argument("model")
@click.option("--device", "devices", multiple=True, help="Choose among these; may be repeated.")
@model_options
@click.option("--owner", help="Whose it is, as an admin says (default: yours).")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same load.")
@click.option("--priority", type=enum_choice(Priority), help="In the queue (default: normal).")
@click.option("--exclusive", is_flag=True, help="The whole device, and nobody else on it.")
@click.option("--preemptible", is_flag=True, help="May be ended early for a higher class.")
@click.option("--wait", "wait_seconds", type=wait, metavar="SPAN", help="Queue for the memory.")
@click.option("--reservation", help="Run in this standing reservation; no memory of its own.")
@click.option("--idle-ttl", type=span, metavar="SPAN", help="Unload it when unused so long.")
@click.option("--label", "labels", type=label, multiple=True, help="Of its promise; repeatable.")
@click.option("--pinned/--no-pinned", default=None, help="Never unload it for being unused.")
@click.option("--dry-run", is_flag=True, help="Footprint and placement, promising nothing.")
@click.option("--detach", is_flag=True, help="Come back once it is under way.")
def load(
    session: Session,
    model: str,
    devices: tuple[str, ...],
    owner: str | None,
    given_id: str | None,
    **options: Any,
) -> None:
    """Load a model and wait until it is ready to serve.

    With --wait it queues until there is room, and ends with 124 when the time has run out.
    The load belongs to gpud: Ctrl-C leaves it, `gpuctl unload` stops it.
    """
    dry_run, detach = options.pop("dry_run"), options.pop("detach")
    labels = dict(options.pop("labels"))
    request = LoadModelRequest(
        request_id=given_id or request_id(),
        model=qualified("models", model),
        **_promise_fields(options, devices),
        **_life_fields(options),
        options=options_message(options),
        devices=devices,
        labels=labels,
        validate_only=dry_run,
        owner=session.owner(owner),
    )
    client = session.client
    with (
        repeatable(request.request_id),
        client.stream(client.instances.LoadModel, request) as said,
    ):
        heard = _heard(said, request)
        again = _again(session.arguments, request.request_id)
        last = _followed(session, heard, _load_goes_on(request, again), until_named=detach)
    if not (dry_run or detach or last.phase == LoadPhase.LOAD_PHASE_READY):
        raise Failure(message=f"the load ended in phase {word(last, 'phase')}, not READY")
    if session.output.is_table and dry_run:
        aliases = device_aliases(session)
        session.output.lines(footprint_lines(last.instance.footprint, aliases))
        if last.instance.options_ignored:
            session.output.lines([f"without effect: {clean(last.instance.options_ignored)}"])
    elif session.output.form != "jsonl":
        session.output.one(last.instance, _columns(session))


# What a wait that ran out is refused with: as without a wait, had that been the answer at once.
_NO_ROOM = {"VRAM_INSUFFICIENT", "DEVICE_UNAVAILABLE"}


def _heard(
    said: Iterator[LoadModelResponse], request: LoadModelRequest
) -> Iterator[LoadModelResponse]:
    """What is said of a load. Raises Failure; after a wait, one that says that it ran out."""
    waits = False
    try:
        for message in said:
            waits = _is_waiting(message)
            yield message
    except Failure as failure:
        if not waits or failure.reason not in _NO_ROOM:
            raise
        waited = span_text(seconds_of(request.max_wait))
        raise replace(
            failure,
            message=f"waited {waited} in vain: {failure.message}",
            exit_code=EXIT_WAITED_OUT,
        ) from failure


def _is_waiting(message: LoadModelResponse) -> bool:
    """Whether the load is in the queue for its bytes."""
    if message.instance.HasField("queue_position"):
        return True
    allocates = message.phase == LoadPhase.LOAD_PHASE_ALLOCATE
    return allocates and message.detail.startswith("waits, ")


def _promise_fields(options: dict[str, Any], devices: tuple[str, ...]) -> dict[str, Any]:
    """What is asked of the promise it runs in; taken out of `options`."""
    names = ("priority", "exclusive", "preemptible", "wait_seconds", "reservation")
    priority, exclusive, preemptible, seconds, inside = (options.pop(name) for name in names)
    if inside and (exclusive or preemptible or priority or seconds or devices):
        raise click.UsageError(
            "--reservation is made already: leave out --device, --exclusive, --preemptible, "
            "--priority and --wait"
        )
    return {
        "priority": enum_number(Priority, priority),
        "sharing": Sharing.SHARING_EXCLUSIVE if exclusive else 0,
        "preemptible": preemptible,
        "max_wait": duration(seconds) if seconds else None,
        "reservation": qualified("reservations", inside) if inside else "",
    }


def _life_fields(options: dict[str, Any]) -> dict[str, Any]:
    """How long it is to stay; taken out of `options`."""
    seconds, pinned = options.pop("idle_ttl"), options.pop("pinned")
    return {"idle_ttl": None if seconds is None else duration(seconds), "pinned": pinned}


_UNLOADED_COLUMNS: tuple[Column[UnloadModelResponse], ...] = (
    Column(header="INSTANCE", cell=lambda u: u.instance.name.removeprefix("instances/")),
    Column(header="STATE", cell=lambda u: word(u, "phase")),
    Column(header="FREED", cell=lambda u: size_text(known(u, "freed_bytes")), right=True),
)


@command(named=False)
@click.argument("name", metavar="MODEL|INSTANCE")
@click.option("--grace", type=span, help="How long requests in flight may go on (default: 5s).")
@click.option("--force", is_flag=True, help="Kill at once.")
def unload(session: Session, name: str, grace: float | None, force: bool) -> None:
    """Stop an instance, in any phase, and wait until its memory is back."""
    request = UnloadModelRequest(
        request_id=request_id(),
        grace=None if grace is None else duration(grace),
        force=force,
        owner=session.owner(),
    )
    instance = instance_or_none(session, name)
    if instance is None:
        request.model = qualified("models", name)
    else:
        request.instance = instance
    client = session.client
    with client.stream(client.instances.UnloadModel, request) as said:
        last = _followed(session, said, _unload_goes_on(name))
    if last.phase != UnloadPhase.UNLOAD_PHASE_STOPPED:
        raise Failure(message=f"the unload ended in phase {word(last, 'phase')}, not STOPPED")
    if session.output.form != "jsonl":
        session.output.one(last, _UNLOADED_COLUMNS)


@command(fans_out=True)
@click.option("--all", "every", is_flag=True, help="Those that were stopped lately too.")
@click.option("--model", default="", help="Only of this model.")
def instances(session: Session, every: bool, model: str) -> None:
    """List the engines that run, start or failed lately. `ps` for short."""
    request = ListInstancesRequest(model=qualified("models", model) if model else "")
    client = session.client
    pages = client.pages(client.instances.ListInstances, request)
    found = [i for page in pages for i in page.instances if every or not is_stopped(i)]
    session.output.many("instances", found, _columns(session) if found else ())


# Given the instance's name, empty while it is not known: what to tell who left with Ctrl-C.
GoesOn = Callable[[str], Failure]


def _again(arguments: Sequence[str], id_: str) -> str:
    """The command line that asks for the very same: with other words its id is refused."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    if not any(each.partition("=")[0] == "--request-id" for each in words[:end]):
        words[end:end] = ["--request-id", id_]
    return shlex.join(["gpuctl", *words])


def _load_goes_on(request: LoadModelRequest, again: str) -> GoesOn:
    model = request.model.removeprefix("models/")
    return lambda instance: Failure(
        message=f"the load of {instance or model} goes on",
        exit_code=EXIT_INTERRUPTED,
        notes=(
            f"follow it: {again}",
            f"stop it:   gpuctl unload {instance or model}",
        ),
    )


def _unload_goes_on(name: str) -> GoesOn:
    return lambda instance: Failure(
        message=f"the unload of {instance or name} goes on",
        exit_code=EXIT_INTERRUPTED,
        notes=("see how far it is: gpuctl instances --all",),
    )


def _followed(
    session: Session, said: Iterator[Progress], goes_on: GoesOn, *, until_named: bool = False
) -> Progress:
    """Show progress until the stream ends, or names its instance; its last message."""
    last: Progress | None = None
    try:
        with phases(session) as report:
            for message in said:
                last = message
                report(_step(message))
                if session.output.form == "jsonl":
                    session.output.streamed(message)
                if until_named and message.instance.name:
                    break
    except KeyboardInterrupt:
        raise goes_on(last.instance.name if last is not None else "") from None
    if last is None:
        raise Failure(message="gpud ended the stream without a word", outcome_unknown=True)
    return last


def _step(message: LoadModelResponse | UnloadModelResponse) -> Step:
    fraction = known(message, "fraction") if isinstance(message, LoadModelResponse) else None
    return Step(
        phase=word(message, "phase"),
        fraction=fraction,
        detail=message.detail,
        elapsed_seconds=seconds_of(message.elapsed),
    )
