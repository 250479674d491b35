"""Snapshots as they are told: each view of one is put into bytes once, for all who ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpud.devices.snapshot import Snapshot
from gpud.errors import OptionInvalid
from gpud.rpc import messages
from gpud.rpc.view import View
from gpud.v1 import telemetry_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reader wants to see of a snapshot. No devices: all; UUIDs, sorted."""

    devices: tuple[str, ...] = ()
    processes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a message says to one reader alone; None: nothing of that."""

    dropped_count: int = 0
    missed_count: int | None = None

    def __bool__(self) -> bool:
        return self.dropped_count > 0 or self.missed_count is not None


class Told:
    """The newest snapshot in each view that was asked for. `epoch` names this life of gpud."""

    def __init__(self, view: View, epoch: str) -> None:
        self._view = view
        self._epoch = epoch
        self._sequence = 0
        self._bytes: dict[Asked, tuple[int, bytes]] = {}  # with the revision of the promises

    def message(self, value: Snapshot, asked: Asked) -> pb.Snapshot:
        """A snapshot with the promises as they are now."""
        samples = [s for s in value.samples if not asked.devices or s.info.uuid in asked.devices]
        devices = self._view.devices(samples, processes=asked.processes)
        message = messages.snapshot(value, devices, 0)
        message.epoch = self._epoch
        return message

    def resumed(self, request: pb.WatchSnapshotsRequest, latest: Snapshot | None) -> int | None:
        """After which snapshot a stream goes on; None: none of this life. Raises OptionInvalid."""
        messages.checked_text("epoch", request.epoch, 64)
        if not request.HasField("after_sequence"):
            return None
        after = request.after_sequence
        if after < 0:
            raise OptionInvalid(field="after_sequence", problem="below 0")
        # A number that this life has not come to is another's, whatever was said.
        is_ours = request.epoch in ("", self._epoch) and latest is not None
        return after if is_ours and latest is not None and after <= latest.sequence else None

    def encoded(self, value: Snapshot, asked: Asked, own: Own, *, fresh: bool) -> Any:
        """A WatchSnapshotsResponse in bytes; `fresh`: with the promises as they are now.

        What is the reader's own stands behind what is everybody's: parsers merge the two.
        """
        if value.sequence != self._sequence:
            self._sequence = value.sequence
            self._bytes.clear()
        revision = self._view.promises.revision
        known = self._bytes.get(asked)
        if known is None or (fresh and known[0] != revision):
            told = pb.WatchSnapshotsResponse(snapshot=self.message(value, asked))
            known = self._bytes[asked] = (revision, told.SerializeToString())
        if not own:
            return known[1]
        told = pb.WatchSnapshotsResponse(
            snapshot=pb.Snapshot(dropped_count=own.dropped_count, missed_count=own.missed_count)
        )
        return known[1] + told.SerializeToString()
