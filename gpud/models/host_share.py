"""Pure: the RAM that an engine needs beside the card that it runs on."""

from __future__ import annotations

from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import GgufHeader
from gpud.models.llama.compute import host_compute_bytes
from gpud.models.llama.plan import Plan, shares
from gpud.models.llama.weights import host_weights
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from gpud.units import MIB

# What the CUDA runtime keeps in a process's own memory. A stated default, unmeasured.
CUDA_HOST_BYTES: Final = 256 * MIB
MARGIN: Final = 0.1
# What a card cannot take over from the host.
_STAYS: Final = (FootprintWhat.CONTEXT, FootprintWhat.OUTPUT, FootprintWhat.HOST_CACHE)
# What lies on the host as far as no card carries it (layers that were not offloaded).
_MOVES: Final = (FootprintWhat.KV_CACHE, FootprintWhat.STATE)
_HOST: Final = DeviceTraits(kind=DeviceKind.HOST, model_name="host")


def host_share(header: GgufHeader, options: ModelOptions, device: DeviceTraits) -> int:
    """Bytes of RAM; 0 on the host itself, whose footprint has them all.

    The process with its vocabulary and logits, the prompts that it keeps, the inputs' tensors and
    buffers, and what of weights and caches is not on any card. Weights are read through the page
    cache, once for all instances of a file, but count here because instances keep them from swap
    by locking them. Raises GgufInvalid as estimate does.
    """
    if device.kind is DeviceKind.HOST:
        return 0
    whole = estimate(header, options, _HOST)
    cards = [estimate(header, options, device, share) for share in shares(options)]
    plan = Plan.of(header, options, on_host=False, share=shares(options)[0])
    size = sum(_bytes(whole, what) for what in _STAYS)
    size += host_weights(header, plan) + host_compute_bytes(plan)
    for what in _MOVES:
        size += max(0, _bytes(whole, what) - sum(_bytes(card, what) for card in cards))
    if device.kind is not DeviceKind.SIMULATED:
        size += CUDA_HOST_BYTES
    return int(size * (1 + MARGIN))


def _bytes(footprint: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in footprint.items if item.what is what)
