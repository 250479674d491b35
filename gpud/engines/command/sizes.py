"""Pure: the bytes of a command, as its entry declares them."""

from __future__ import annotations

from gpud.devices.snapshot import DeviceKind
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.gguf import GgufInvalid
from gpud.models.model import CommandSpec, Confidence, Footprint, FootprintItem, FootprintWhat


def declared(inspection: Inspection, device: DeviceTraits) -> Footprint:
    """What it needs on the device; on the host that is its RAM as well.

    Whoever wrote the entry knows the server, so no margin comes on top. Raises GgufInvalid.
    """
    told = _spec(inspection)
    items = [
        FootprintItem(
            what=FootprintWhat.WEIGHTS,
            bytes=told.device_bytes,
            source="declared: device_bytes of its entry",
        )
    ]
    if device.kind is DeviceKind.HOST and told.host_bytes:
        items.append(
            FootprintItem(
                what=FootprintWhat.CONTEXT,
                bytes=told.host_bytes,
                source="declared: host_bytes of its entry",
            )
        )
    return Footprint(items=tuple(items), confidence=Confidence.GUESS)


def beside(inspection: Inspection, device: DeviceTraits) -> int:
    """The RAM that it needs beside a card; 0 on the host. Raises GgufInvalid."""
    return 0 if device.kind is DeviceKind.HOST else _spec(inspection).host_bytes


def _spec(inspection: Inspection) -> CommandSpec:
    if inspection.command is None:
        raise GgufInvalid("is of no command")
    return inspection.command
