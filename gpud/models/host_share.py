"""Pure: the RAM that an engine needs beside the card that it runs on."""

from __future__ import annotations

from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import GgufHeader
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from gpud.units import MIB

# What the CUDA runtime keeps in a process's own memory. A stated default, unmeasured.
CUDA_HOST_BYTES: Final = 256 * MIB
MARGIN: Final = 0.1
# What a card cannot take over from the host.
_STAYS: Final = (FootprintWhat.CONTEXT, FootprintWhat.OUTPUT)
# What lies on the host as far as the card does not carry it (layers that were not offloaded).
_MOVES: Final = (FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE)


def host_share(header: GgufHeader, options: ModelOptions, device: DeviceTraits) -> int:
    """Bytes of RAM; 0 on the host itself, whose footprint has them all.

    The process with its vocabulary and logits, and the share of the weights and caches that is not
    on the card; weights are read through the page cache, but count here because instances keep
    them from swap by locking them. Raises GgufInvalid as estimate does.
    """
    if device.kind is DeviceKind.HOST:
        return 0
    whole = estimate(header, options, DeviceTraits(kind=DeviceKind.HOST, model_name="host"))
    card = estimate(header, options, device)
    size = sum(_bytes(whole, what) for what in _STAYS)
    size += sum(max(0, _bytes(whole, what) - _bytes(card, what)) for what in _MOVES)
    if device.kind is not DeviceKind.SIMULATED:
        size += CUDA_HOST_BYTES
    return int(size * (1 + MARGIN))


def _bytes(footprint: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in footprint.items if item.what is what)
