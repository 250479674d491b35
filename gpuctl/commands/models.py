"""`gpuctl models` and `estimate`: what can be loaded, where it comes from, what it costs."""

from __future__ import annotations

import shlex
from typing import Any

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.failures import repeatable
from gpuctl.messages import known, word
from gpuctl.options import (
    command,
    enum_choice,
    enum_number,
    label,
    model_options,
    options_message,
    qualified,
)
from gpuctl.session import Session, request_id
from gpuctl.tables import Column, Table, clean
from gpuctl.units import compact_size, size_text
from gpud.v1.models_pb2 import (
    DeleteModelRequest,
    DeleteModelResponse,
    EstimateFootprintRequest,
    Footprint,
    FootprintItem,
    ListModelsRequest,
    Model,
    ModelKind,
    RegisterModelRequest,
)
from gpud.v1.node_pb2 import Engine


def _size(model: Model) -> int | None:
    sizes = [known(file, "size_bytes") for file in model.files]
    return sum(sizes) if sizes and None not in sizes else None


def _footprint(model: Model) -> int | None:
    return model.footprint.total_bytes if model.HasField("footprint") else None


def _from(model: Model) -> str:
    """Where its files lie; of one that is fetched, where from."""
    source = model.source
    if source.url:
        return source.url
    if source.hub:
        return f"hub:{source.hub}@{source.revision}{f' {source.file}' if source.file else ''}"
    more = f" and {len(model.files) - 1} more" if len(model.files) > 1 else ""
    return f"{model.files[0].path}{more}" if model.files else ""


MODEL_COLUMNS: tuple[Column[Model], ...] = (
    Column(header="MODEL", cell=lambda m: m.name.removeprefix("models/")),
    Column(header="ENGINE", cell=lambda m: word(m, "engine")),
    Column(header="KIND", cell=lambda m: word(m, "kind")),
    Column(header="PATH", cell=_from),
    Column(header="SIZE", cell=lambda m: compact_size(_size(m)), right=True, wide=True),
    Column(header="FOOTPRINT", cell=lambda m: compact_size(_footprint(m)), right=True, wide=True),
    Column(header="OWNER", cell=lambda m: m.owner, wide=True),
    Column(header="PROBLEM", cell=lambda m: m.problem or m.notice),
)

_ITEM_COLUMNS: tuple[Column[FootprintItem], ...] = (
    Column(header="WHAT", cell=lambda i: word(i, "what")),
    Column(header="BYTES", cell=lambda i: size_text(i.bytes), right=True),
    Column(header="FROM", cell=lambda i: i.source),
)


@command(fans_out=True)
def _list(session: Session) -> None:
    client = session.client
    pages = client.pages(client.models.ListModels, ListModelsRequest())
    session.output.many("models", [m for page in pages for m in page.models], MODEL_COLUMNS)


@click.pass_context
def _models(ctx: click.Context, /, **_options: Any) -> None:
    """List the catalogue, what can be loaded here; or add to it, and take from it."""
    if ctx.invoked_subcommand is None:
        _list.invoke(ctx)


class _Models(click.Group):
    """Tells who types what other programs call `models list` and `models show` what it is here."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for the advice."""
        name, of = args[0], shlex.join(args[1:2]) or "NAME"
        advice = {
            **dict.fromkeys(("list", "ls"), "`gpuctl models` lists them"),
            **dict.fromkeys(("show", "get", "describe"), f"`gpuctl show {of}` shows one"),
            **dict.fromkeys(("add", "create"), f"`gpuctl models register {of}` adds one"),
            **dict.fromkeys(("remove", "rm"), f"`gpuctl models delete {of}` takes one away"),
        }
        if name in advice and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r} of models; {advice[name]}")
        return super().resolve_command(ctx, args)


models = _Models(
    name="models",
    callback=_models,
    help=_models.__doc__,
    params=_list.params,
    invoke_without_command=True,
)


@command()
@click.argument("name")
@click.option("--path", default="", help="A file or folder under the daemon's model roots.")
@click.option("--url", default="", help="Fetch it from there at its first load; needs --sha256.")
@click.option("--hub", default="", metavar="OWNER/NAME", help="Fetch it from a model hub.")
@click.option("--revision", default="", help="A branch, tag or commit there (default: main).")
@click.option("--file", default="", help="One file there; of a split one the first part.")
@click.option("--sha256", default="", metavar="HEX", help="What the file has to be.")
@click.option("--mmproj", default="", metavar="PATH", help="A projector for images.")
@click.option("--engine", type=enum_choice(Engine, "command"), help="Default: llama_cpp.")
@click.option("--kind", type=enum_choice(ModelKind), help="Default: as the file says.")
@click.option("--profile", default="", help="Options for what is not said here.")
@click.option("--label", "labels", type=label, multiple=True, help="May be repeated.")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same entry.")
@click.option("--dry-run", is_flag=True, help="Only check it; nothing is added.")
@model_options
def register(
    session: Session,
    name: str,
    engine: str | None,
    kind: str | None,
    given_id: str | None,
    dry_run: bool,
    **given: Any,
) -> None:
    """Add a model to the catalogue, for good: a file that lies there, or one to be fetched.

    Say where it is by one of --path, --url and --hub; the rest are the options it is loaded with.
    """
    words = {field: given.pop(field) for field in _WORDS}
    labels = dict(given.pop("labels"))
    request = RegisterModelRequest(
        request_id=given_id or request_id(),
        validate_only=dry_run,
        owner=session.owner(),
        name=qualified("models", name),
        engine=enum_number(Engine, engine),
        kind=enum_number(ModelKind, kind),
        options=options_message(given),
        labels=labels,
        **words,
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(client.models.RegisterModel, request)
    session.output.one(answer.model, MODEL_COLUMNS)


_WORDS = ("path", "url", "hub", "revision", "file", "sha256", "mmproj", "profile")
_DELETED_COLUMNS: tuple[Column[DeleteModelResponse], ...] = (
    Column(header="MODEL", cell=lambda d: d.model.name.removeprefix("models/")),
    Column(header="FREED", cell=lambda d: size_text(d.freed_bytes), right=True),
)


@command(named=False)
@click.argument("name")
@click.option("--keep-files", is_flag=True, help="Leave what was downloaded for it.")
@click.option("--dry-run", is_flag=True, help="Only check; nothing is taken away.")
def delete(session: Session, name: str, keep_files: bool, dry_run: bool) -> None:
    """Take a registered model from the catalogue, and what was downloaded for it from the disk."""
    request = DeleteModelRequest(
        request_id=request_id(),
        name=qualified("models", name),
        owner=session.owner(),
        validate_only=dry_run,
        keep_files=keep_files,
    )
    client = session.client
    session.output.one(client.call(client.models.DeleteModel, request), _DELETED_COLUMNS)


models.add_command(register, "register")
models.add_command(delete, "delete")


@command(named=False)
@click.argument("model")
@click.option("--device", default="", help="For this device (default: the first GPU, else host).")
@model_options
def estimate(session: Session, model: str, device: str, **options: Any) -> None:
    """Tell what a load would need on a device, byte by byte, promising nothing."""
    request = EstimateFootprintRequest(
        model=qualified("models", model), options=options_message(options), device=device
    )
    client = session.client
    footprint = client.call(client.models.EstimateFootprint, request).footprint
    if session.output.is_table:
        session.output.lines(footprint_lines(footprint, device_aliases(session)))
    else:
        session.output.one(footprint, ())


def footprint_lines(footprint: Footprint, aliases: dict[str, str]) -> list[str]:
    """The items of a footprint, their sum, and how far it can be trusted."""
    past = known(footprint, "past_error")
    of = f" ({clean(footprint.past_error_of)})" if footprint.past_error_of else ""
    error = "" if past is None else f"; last measured {past:+.1%} against the estimate{of}"
    device = aliases.get(footprint.device, footprint.device)
    where = f" on {clean(device)}" if device else ""
    return [
        *Table(_ITEM_COLUMNS).lines(footprint.items),
        "",
        f"total {size_text(footprint.total_bytes)}{where}, of which margin "
        f"{size_text(footprint.margin_bytes)}; confidence {word(footprint, 'confidence')}{error}",
    ]
