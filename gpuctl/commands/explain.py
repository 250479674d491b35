"""`gpuctl explain`: what a request would be answered, device by device, and what is in its way."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import click
from grpc import StatusCode

from gpuctl.commands.demand import demand_fields, demand_options, wait
from gpuctl.failures import EXIT_REFUSED_BASE
from gpuctl.messages import known, seconds_of, to_plain
from gpuctl.options import command
from gpuctl.render import terminal_width
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean
from gpuctl.units import compact_size, size_text, span_text
from gpud.v1.reservations_pb2 import (
    DeviceExplanation,
    ExplainRequest,
    ExplainResponse,
    Holder,
    Shape,
)

# The codes that Reserve would refuse with. Any other reason is one of state.
_CODES = {
    **dict.fromkeys(
        ("VRAM_INSUFFICIENT", "QUOTA_EXCEEDED", "QUEUE_FULL"), StatusCode.RESOURCE_EXHAUSTED
    ),
    **dict.fromkeys(("STALE", "RECONCILING", "STORE_READ_ONLY"), StatusCode.UNAVAILABLE),
}
_INDENT = "    "


def exit_code(answer: ExplainResponse) -> int:
    """0 if it fits, else as Reserve would end: 72, 73 or 78 by its reason."""
    if answer.fits:
        return 0
    code = _CODES.get(answer.reason, StatusCode.FAILED_PRECONDITION)
    return int(EXIT_REFUSED_BASE + code.value[0])


@command(named=False)
@demand_options
@click.option("--wait", "wait_seconds", type=wait, metavar="SPAN", help="As with reserve.")
def explain(session: Session, wait_seconds: float | None, **asked: Any) -> None:
    """Tell whether `reserve` would grant this now, who holds what is missing, and what would help.

    Changes nothing. Ends with 0 if it fits, else as `reserve` would: 72 where bytes are missing,
    73 where a device or the node may not be used, 78 where gpud cannot grant anything now.
    """
    request = ExplainRequest(**demand_fields(session, asked, wait_seconds))
    client, output = session.client, session.output
    answer = client.call(client.reservations.Explain, request)
    if output.is_table:
        shapes = [_first_shape(request), *request.alternatives]
        output.lines(explanation_lines(answer, shapes, session.now()))
    else:
        output.document(to_plain(answer))
    raise click.exceptions.Exit(exit_code(answer))


def _first_shape(request: ExplainRequest) -> Shape:
    return Shape(bytes=request.bytes, device_count=request.device_count, devices=request.devices)


_COLUMNS: tuple[Column[DeviceExplanation], ...] = (
    Column(header="DEVICE", cell=lambda d: d.alias or d.device.removeprefix("devices/")),
    Column(header="NEEDED", cell=lambda d: compact_size(d.needed_bytes), right=True),
    Column(
        header="GRANTABLE", cell=lambda d: compact_size(known(d, "grantable_bytes")), right=True
    ),
    Column(header="TOTAL", cell=lambda d: compact_size(known(d, "total_bytes")), right=True),
    Column(header="FITS", cell=lambda d: "yes" if d.fits else "no"),
)


def explanation_lines(answer: ExplainResponse, shapes: list[Shape], now: float) -> Iterator[str]:
    """A row for each device, beneath it what holds its bytes and what would help."""
    table = Table(_COLUMNS)
    table.lines(answer.devices)  # every shape's rows stand under the same headers
    for index, grouped in groupby(answer.devices, key=lambda device: device.shape):
        devices = list(grouped)
        if len(shapes) > 1 and 0 <= index < len(shapes):
            yield f"{'either' if index == 0 else 'or'} {_shape_text(shapes[index])}"
        header, *rows = table.lines(devices)
        yield header
        for row, device in zip(rows, devices, strict=True):
            yield row
            yield from _beneath(device, now)
        yield ""
    if answer.queue_ahead:
        yield f"{answer.queue_ahead} wait before it"
    yield from _wrapped(answer.summary, "")
    if answer.fits:
        return
    if answer.can_wait:
        yield "waiting can help (--wait)"
    elif answer.reason == "QUOTA_EXCEEDED":
        yield "--wait cannot help: what exceeds a quota is refused at once"
    else:
        yield "waiting cannot help"


def _shape_text(shape: Shape) -> str:
    count = shape.device_count or len(shape.devices) or 1
    devices = f" of {', '.join(map(clean, shape.devices))}" if shape.devices else ""
    each = "" if count == 1 else f"{count} × "
    return f"{each}{size_text(shape.bytes)}{devices}"


_HOLDERS: tuple[Column[Holder], ...] = (
    Column(header="", cell=lambda h: compact_size(h.bytes), right=True),
    Column(header="", cell=lambda h: h.owner),
    Column(header="", cell=lambda h: h.reservation.removeprefix("reservations/") or _process(h)),
)


def _beneath(device: DeviceExplanation, now: float) -> Iterator[str]:
    drawn = Table(_HOLDERS).lines(device.holders, header=False) if device.holders else []
    for line, holder in zip(drawn, device.holders, strict=True):
        yield f"{_INDENT}{line.removesuffix(' -').rstrip()}{_until(holder, now)}"
    if device.rule:
        yield from _wrapped(f"rule: {device.rule}", _INDENT)
    if device.remedy and not device.fits:
        yield from _wrapped(f"remedy: {device.remedy}", _INDENT)
    if device.HasField("expected_time") and not device.fits:
        left = max(0.0, seconds_of(device.expected_time) - now)
        yield f"{_INDENT}expected to fit in {span_text(left)}, if the leases end as they stand"


def _process(holder: Holder) -> str:
    pid = known(holder, "pid")
    return "" if pid is None else f"pid {pid} {holder.process_name}".rstrip()


def _until(holder: Holder, now: float) -> str:
    if not holder.HasField("until_time"):
        return ""
    return f"  for {span_text(max(0.0, seconds_of(holder.until_time) - now))} more"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        clean(text), terminal_width(sys.stdout),
        initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
