"""Every service with what it serves from; the server registers what this lists."""

from __future__ import annotations

from gpud.events import Journal
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.rpc.devices import Devices
from gpud.rpc.instances import Instances
from gpud.rpc.models import Models
from gpud.rpc.node import Node, NodeFacts
from gpud.rpc.reservations import Reservations
from gpud.rpc.server import Registration
from gpud.rpc.telemetry import Telemetry
from gpud.rpc.view import View
from gpud.telemetry.seen import Seen
from gpud.v1 import (
    devices_pb2_grpc,
    instances_pb2_grpc,
    models_pb2_grpc,
    node_pb2_grpc,
    reservations_pb2_grpc,
    telemetry_pb2_grpc,
)


def services(
    facts: NodeFacts,
    journal: Journal,
    house: House,
    roster: Roster,
    seen: Seen,
) -> tuple[Registration, ...]:
    """One registration per service of the contract."""
    assert house.enforce is not None, "no guard yet"  # noqa: S101 — a programming error
    view = View(
        snapshots=house.snapshots,
        promises=house.promises,
        clock=house.clock,
        enforce=house.enforce,
        places=house.places,
        signs=roster.signs,
        engines=seen.engines,
    )
    return (
        Registration(
            name="gpud.v1.NodeService",
            servicer=Node(facts, journal, view, roster),
            add=node_pb2_grpc.add_NodeServiceServicer_to_server,
        ),
        Registration(
            name="gpud.v1.DeviceService",
            servicer=Devices(view),
            add=devices_pb2_grpc.add_DeviceServiceServicer_to_server,
        ),
        Registration(
            name="gpud.v1.TelemetryService",
            servicer=Telemetry(view, seen),
            add=telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server,
        ),
        Registration(
            name="gpud.v1.ReservationService",
            servicer=Reservations(view),
            add=reservations_pb2_grpc.add_ReservationServiceServicer_to_server,
        ),
        Registration(
            name="gpud.v1.ModelService",
            servicer=Models(view, house, roster),
            add=models_pb2_grpc.add_ModelServiceServicer_to_server,
        ),
        Registration(
            name="gpud.v1.InstanceService",
            servicer=Instances(view, roster, house, seen.benchmarks),
            add=instances_pb2_grpc.add_InstanceServiceServicer_to_server,
        ),
    )
