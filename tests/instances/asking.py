"""The service of instances over a town."""

from __future__ import annotations

from gpud.benchmarking.benchmarks import Benchmarks
from gpud.ledger.reservation import Enforcement, Reservation
from gpud.rpc.instances import Instances
from gpud.rpc.view import View
from gpud.settings import EngineMetrics as Settings
from gpud.telemetry.engines.metrics import EngineMetrics
from tests.instances.town import Town


async def unenforced(_: Reservation) -> Enforcement:
    raise AssertionError("nothing here is exclusive")


def service(place: Town) -> Instances:
    """What answers calls about its instances."""
    benchmarks = Benchmarks(place.house, place.roster)
    view = View(
        snapshots=place.feed,
        promises=place.promises,
        clock=place.clock,
        enforce=unenforced,
        places=place.house.places,
        signs=place.roster.signs,
        engines=EngineMetrics(Settings(), place.house, place.roster, benchmarks),
    )
    return Instances(view, place.roster, place.house, benchmarks)
