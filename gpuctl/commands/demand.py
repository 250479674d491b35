"""What can be asked for: the options that `reserve`, `explain` and `run` share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gpuctl.messages import duration
from gpuctl.options import COUNT, WHOLE, enum_choice, enum_number, label, size, span
from gpuctl.session import Session
from gpud.v1.devices_pb2 import DeviceKind
from gpud.v1.reservations_pb2 import Enforcement, Placement, Priority, Shape, Sharing

Handler = TypeVar("Handler", bound=Callable[..., Any])

_ALTERNATIVE = r"(?:([0-9]+)x)?([^@]+)(?:@(.+))?"
_ALTERNATIVE_FORM = "write for example 24GiB, 2x12GiB or 2x12GiB@gpu0,gpu1"


def alternative(text: str) -> Shape:
    """The shape of `2x12GiB@gpu0,gpu1`; a usage error names the form."""
    match = re.fullmatch(_ALTERNATIVE, text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no alternative; {_ALTERNATIVE_FORM}")
    count, amount, devices = match.groups()
    names = devices.split(",") if devices else []
    try:
        shape = Shape(bytes=size(amount), device_count=COUNT(count) if count else 0, devices=names)
    except click.BadParameter as error:
        raise click.BadParameter(f"{text!r}: {error.message}; {_ALTERNATIVE_FORM}") from error
    if not all(names):
        raise click.BadParameter(f"{text!r} names an empty device; {_ALTERNATIVE_FORM}")
    return shape


def wait(text: str) -> float:
    """Seconds of 30s; 0 is not to wait at all."""
    return 0.0 if text.strip() == "0" else span(text)


_OPTIONS = (
    click.option("--vram", type=size, help="How much on each device, as 8GiB."),
    click.option("--ram", type=size, help="How much of the host's memory beside it."),
    click.option("--device", "devices", multiple=True, help="One of these; may be repeated."),
    click.option(
        "--count", type=COUNT, help="On how many devices (default: those named, else 1)."
    ),
    click.option("--kind", type=enum_choice(DeviceKind), help="One of this kind."),
    click.option(
        "--alternative",
        "alternatives",
        type=alternative,
        multiple=True,
        metavar="[COUNTx]SIZE[@DEVICE,…]",
        help="Else this; may be repeated, tried in order.",
    ),
    click.option("--exclusive", is_flag=True, help="The whole device, and nobody else on it."),
    click.option("--require-driver", is_flag=True, help="Only where the driver keeps others off."),
    click.option("--placement", type=enum_choice(Placement), help="Fullest first, or emptiest."),
    click.option("--pack", is_flag=True, help="As --placement pack (the default)."),
    click.option("--spread", is_flag=True, help="As --placement spread."),
    click.option("--numa-node", type=WHOLE, help="Prefer devices of this node."),
    click.option("--priority", type=enum_choice(Priority), help="In the queue (default: normal)."),
    click.option("--preemptible", is_flag=True, help="May be ended early for a higher class."),
    click.option("--ttl", type=span, help="Ends after this unless renewed (10m; with run 1m)."),
    click.option("--owner", help="Whose it is, as an admin says (default: yours)."),
    click.option("--label", "labels", type=label, multiple=True, help="May be repeated."),
)
# Parameters that say what to promise, as --reservation does by itself.
_NAMES = (
    "vram", "ram", "devices", "count", "kind", "alternatives", "exclusive", "require_driver",
    "placement", "pack", "spread", "numa_node", "priority", "preemptible", "ttl", "labels",
    "owner",
)  # fmt: skip


def demand_options(function: Handler) -> Handler:
    """The options; they arrive as keyword arguments, to be handed to `demand_fields`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def given_options(options: dict[str, Any]) -> list[str]:
    """How the options that were given are written."""
    flags = {"devices": "device", "alternatives": "alternative", "labels": "label"}
    return [
        "--" + flags.get(name, name).replace("_", "-")
        for name in _NAMES
        if options[name] not in (None, False, ())
    ]


def demand_fields(
    session: Session, options: dict[str, Any], wait_seconds: float | None
) -> dict[str, Any]:
    """The fields that ReserveRequest and ExplainRequest share. Raises a usage error."""
    if options["vram"] is None:
        raise click.UsageError("--vram is missing: how much on each device, as 8GiB")
    if options["require_driver"] and not options["exclusive"]:
        raise click.UsageError("--require-driver is about an exclusive device: add --exclusive")
    ttl = options["ttl"]
    sharing = Sharing.SHARING_EXCLUSIVE if options["exclusive"] else 0
    enforcement = Enforcement.ENFORCEMENT_DRIVER if options["require_driver"] else 0
    return {
        "bytes": options["vram"],
        "host_bytes": options["ram"] or 0,
        "device_count": options["count"] or 0,
        "devices": options["devices"],
        "kind": enum_number(DeviceKind, options["kind"]),
        "alternatives": options["alternatives"],
        "sharing": sharing,
        "require_enforcement": enforcement,
        "placement": enum_number(Placement, _placement(options)),
        "numa_node": options["numa_node"],
        "priority": enum_number(Priority, options["priority"]),
        "preemptible": options["preemptible"],
        "ttl": None if ttl is None else duration(ttl),
        "max_wait": duration(wait_seconds) if wait_seconds else None,
        "owner": session.owner(options["owner"]),
        "labels": dict(options["labels"]),
    }


def _placement(options: dict[str, Any]) -> str | None:
    said = [options["placement"]] if options["placement"] else []
    said += [name for name in ("pack", "spread") if options[name]]
    if len(set(said)) > 1:
        raise click.UsageError(f"cannot both {' and '.join(sorted(set(said)))}: choose one")
    return said[0] if said else None
