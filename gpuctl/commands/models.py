"""`gpuctl models` and `estimate`: what can be loaded, and what it costs."""

from __future__ import annotations

from typing import Any

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.messages import known, word
from gpuctl.options import command, model_options, options_message, qualified
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean
from gpuctl.units import compact_size, size_text
from gpud.v1.models_pb2 import (
    EstimateFootprintRequest,
    Footprint,
    FootprintItem,
    ListModelsRequest,
    Model,
)


def _size(model: Model) -> int | None:
    sizes = [known(file, "size_bytes") for file in model.files]
    return sum(sizes) if sizes and None not in sizes else None


def _footprint(model: Model) -> int | None:
    return model.footprint.total_bytes if model.HasField("footprint") else None


MODEL_COLUMNS: tuple[Column[Model], ...] = (
    Column(header="MODEL", cell=lambda m: m.name.removeprefix("models/")),
    Column(header="ENGINE", cell=lambda m: word(m, "engine")),
    Column(header="KIND", cell=lambda m: word(m, "kind")),
    Column(header="PATH", cell=lambda m: ", ".join(f.path for f in m.files)),
    Column(header="SIZE", cell=lambda m: compact_size(_size(m)), right=True, wide=True),
    Column(header="FOOTPRINT", cell=lambda m: compact_size(_footprint(m)), right=True, wide=True),
    Column(header="PROBLEM", cell=lambda m: m.problem),
)

_ITEM_COLUMNS: tuple[Column[FootprintItem], ...] = (
    Column(header="WHAT", cell=lambda i: word(i, "what")),
    Column(header="BYTES", cell=lambda i: size_text(i.bytes), right=True),
    Column(header="FROM", cell=lambda i: i.source),
)


@command(fans_out=True)
def models(session: Session) -> None:
    """List the catalogue: what can be loaded here."""
    client = session.client
    pages = client.pages(client.models.ListModels, ListModelsRequest())
    session.output.many("models", [m for page in pages for m in page.models], MODEL_COLUMNS)


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
    error = "" if past is None else f", last measured {past:+.1%} off the estimate"
    device = aliases.get(footprint.device, footprint.device)
    where = f" on {clean(device)}" if device else ""
    return [
        *Table(_ITEM_COLUMNS).lines(footprint.items),
        "",
        f"total {size_text(footprint.total_bytes)}{where}, of which margin "
        f"{size_text(footprint.margin_bytes)}; confidence {word(footprint, 'confidence')}{error}",
    ]
