"""`gpuctl show`: everything that is known of one thing, whatever kind of thing it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import grpc

from gpuctl.commands.describe import describe
from gpuctl.failures import EXIT_REFUSED_BASE, Failure, usage
from gpuctl.options import command
from gpuctl.session import Session
from gpud.v1.devices_pb2 import GetDeviceRequest, ListDevicesRequest
from gpud.v1.instances_pb2 import GetInstanceRequest, ListInstancesRequest
from gpud.v1.models_pb2 import GetModelRequest, ListModelsRequest
from gpud.v1.reservations_pb2 import GetReservationRequest, ListReservationsRequest

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gpuctl.client import Client

_COLLECTIONS = ("devices", "reservations", "models", "instances")


@command(fans_out=True)
@click.argument("name")
def show(session: Session, name: str) -> None:
    """Show a device, reservation, model or instance, by its name, alias or id.

    What an alias or id names is looked up among the devices first.
    """
    full = name if "/" in name else _full_name(session.client, name)
    if full.partition("/")[0] not in _COLLECTIONS:
        raise usage(f"{name!r} begins with none of {', '.join(_COLLECTIONS)}")
    found = _get(session.client, full)
    output = session.output
    if output.is_table:
        output.lines(describe(found, color=output.color))
    else:
        output.one(found, ())


def _get(client: Client, name: str) -> Message:
    collection = name.partition("/")[0]
    if collection == "devices":
        return client.call(client.devices.GetDevice, GetDeviceRequest(name=name)).device
    if collection == "reservations":
        reservations = client.reservations
        return client.call(
            reservations.GetReservation, GetReservationRequest(name=name)
        ).reservation
    if collection == "models":
        return client.call(client.models.GetModel, GetModelRequest(name=name)).model
    return client.call(client.instances.GetInstance, GetInstanceRequest(name=name)).instance


def _full_name(client: Client, name: str) -> str:
    """What an alias or id stands for; found in lists, so nothing is refused. Raises Failure."""
    for page in client.pages(client.devices.ListDevices, ListDevicesRequest()):
        for device in page.devices:
            if name in {device.alias, device.name.removeprefix("devices/")}:
                return device.name
    found = [full for full in _listed(client) if full.partition("/")[2] == name]
    if len(found) > 1:
        raise usage(f"{name!r} could be several things: write {' or '.join(found)}")
    if not found:
        raise Failure(
            message=f"cannot find anything named {name!r}",
            exit_code=EXIT_REFUSED_BASE + grpc.StatusCode.NOT_FOUND.value[0],
            notes=(
                "`gpuctl devices`, `reservations`, `models` and `instances` show what there is",
            ),
            code=grpc.StatusCode.NOT_FOUND,
        )
    return found[0]


def _listed(client: Client) -> Iterator[str]:
    """The name of everything else that gpud knows, what ended lately included."""
    reservations, models, instances = client.reservations, client.models, client.instances
    for promised in client.pages(reservations.ListReservations, ListReservationsRequest()):
        yield from (reservation.name for reservation in promised.reservations)
    for catalogue in client.pages(models.ListModels, ListModelsRequest()):
        yield from (model.name for model in catalogue.models)
    for roster in client.pages(instances.ListInstances, ListInstancesRequest()):
        yield from (instance.name for instance in roster.instances)
