"""A board of devices, and the moment that moves as a test says."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.devices.bands import Bands, Law
from gpud.devices.sampling.board import Board
from gpud.devices.sampling.frames import Answer, Inventory
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    HostReadings,
    Pressure,
    Readings,
    Sample,
    Thermal,
)
from tests.fakes.driver import GIB

HOLD_SECONDS = 10.0
BANDS = Bands(
    pressure=Law(edges=(50.0, 70.0, 85.0), hysteresis=5.0, hold_seconds=HOLD_SECONDS),
    thermal=Law(edges=(65.0, 80.0, 85.0), hysteresis=5.0, hold_seconds=HOLD_SECONDS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    boottime: float
    wall: float = 0.0


def info(number: int, kind: DeviceKind = DeviceKind.GPU, parent: str | None = None) -> DeviceInfo:
    return DeviceInfo(
        uuid=f"{kind.name}-{number}",
        alias=f"gpu{number}",
        index=number,
        kind=kind,
        model_name="fake",
        memory_total_bytes=100 * GIB,
        parent_uuid=parent,
    )


CARD, OTHER = info(0), info(1)
SLICE = info(2, DeviceKind.MIG, CARD.uuid)


class Table:
    """A board, on which these devices were read once, and the moment that moves as a test says."""

    def __init__(self, *infos: DeviceInfo) -> None:
        self.board = Board(BANDS)
        self.at = At(boottime=1000.0)
        if infos:
            self.list(*infos)
        for each in infos:
            self.read(each)

    def wait(self, seconds: float) -> None:
        self.at = At(boottime=self.at.boottime + seconds)

    def list(self, *infos: DeviceInfo, **more: object) -> None:
        self.board.take_inventory(Inventory(devices=infos, **more), self.at)  # type: ignore[arg-type]

    def read(self, of: DeviceInfo, *, used: int | None = 10, celsius: float | None = None) -> None:
        readings = Readings(
            memory_used_bytes=None if used is None else used * GIB, temperature_celsius=celsius
        )
        self.board.take_answer(
            Answer(uuid=of.uuid, boottime=self.at.boottime, wall=0.0, readings=readings)
        )

    def shown(self) -> dict[str, Sample]:
        snapshot = self.board.snapshot(self.at, HostReadings())
        return {sample.info.uuid: sample for sample in snapshot.samples}

    def bands(self, of: DeviceInfo) -> tuple[Pressure | None, Thermal | None]:
        sample = self.shown()[of.uuid]
        return sample.pressure, sample.thermal

    def forget(self, *promised: DeviceInfo) -> None:
        kept = {each.uuid for each in promised}
        self.board.forget(lambda uuid: uuid in kept, self.at)
