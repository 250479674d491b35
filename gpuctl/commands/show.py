"""`gpuctl show`: everything that is known of one thing, whatever kind of thing it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import grpc

from gpuctl.commands.describe import describe
from gpuctl.failures import EXIT_REFUSED_BASE, Failure, usage
from gpuctl.options import command
from gpuctl.session import Session
from gpud.v1.devices_pb2 import GetDeviceRequest
from gpud.v1.instances_pb2 import GetInstanceRequest
from gpud.v1.models_pb2 import GetModelRequest
from gpud.v1.reservations_pb2 import GetReservationRequest

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gpuctl.client import Client

# A name that was only guessed to be of a collection is answered so when it is not.
_NOT_THIS = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}


def _begin(client: Client, collection: str, name: str) -> Callable[[], Message]:
    if collection == "devices":
        device = client.begin(client.devices.GetDevice, GetDeviceRequest(name=name))
        return lambda: device().device
    if collection == "reservations":
        reservation = client.begin(
            client.reservations.GetReservation, GetReservationRequest(name=name)
        )
        return lambda: reservation().reservation
    if collection == "models":
        model = client.begin(client.models.GetModel, GetModelRequest(name=name))
        return lambda: model().model
    instance = client.begin(client.instances.GetInstance, GetInstanceRequest(name=name))
    return lambda: instance().instance


_COLLECTIONS = ("devices", "reservations", "models", "instances")


@command()
@click.argument("name")
def show(session: Session, name: str) -> None:
    """Show a device, reservation, model or instance, by its name, alias or id."""
    collection, slash, _ = name.partition("/")
    if slash:
        if collection not in _COLLECTIONS:
            raise usage(f"{name!r} begins with none of {', '.join(_COLLECTIONS)}")
        found = _begin(session.client, collection, name)()
    else:
        found = _find(session.client, name)
    output = session.output
    if output.is_table:
        output.lines(describe(found, color=output.color))
    else:
        output.one(found, ())


def _find(client: Client, name: str) -> Message:
    """What answers to a bare name: asked of each collection at once. Raises Failure."""
    guesses = [
        # A device is known by its alias and by its bare UUID too.
        _begin(client, collection, name if collection == "devices" else f"{collection}/{name}")
        for collection in _COLLECTIONS
    ]
    found: dict[str, Message] = {}
    for collection, answer in zip(_COLLECTIONS, guesses, strict=True):
        try:
            found[collection] = answer()
        except Failure as failure:
            if failure.code not in _NOT_THIS:
                raise
    if len(found) > 1:
        names = " or ".join(f"{collection}/{name}" for collection in found)
        raise usage(f"{name!r} could be several things: write {names}")
    if not found:
        raise Failure(
            message=f"cannot find anything named {name!r}",
            exit_code=EXIT_REFUSED_BASE + grpc.StatusCode.NOT_FOUND.value[0],
            notes=(
                "`gpuctl devices`, `reservations`, `models` and `instances` show what there is",
            ),
            code=grpc.StatusCode.NOT_FOUND,
        )
    return next(iter(found.values()))
