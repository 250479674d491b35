"""Pure: what a load is expected to take: as measured here before, else as its engine tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpud.devices.snapshot import DeviceKind
from gpud.engines.engine import Engine
from gpud.instances.measuring.beside import Beside
from gpud.models.catalogue import Inspection
from gpud.models.footprint import HOST_PROCESS_LEAST_BYTES, DeviceTraits
from gpud.models.learned import EngineBuild, Learned, load_key, process_key
from gpud.models.model import EngineKind, Footprint, FootprintWhat, ModelKind, ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """An engine's estimates with what was learned put in. `build` None: its version is unknown."""

    engine: Engine
    learned: Learned
    build: EngineBuild | None

    def estimate(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        """The bytes that a load needs on each of its devices. Raises as Engine.estimate does."""
        options = _settled(inspection, options)
        if self.build is None:
            return self.engine.estimate(inspection, options, device)
        key = process_key(self.build, device, self.engine.devices_needed(options))
        known = self.learned.process_bytes(key)
        law = self.engine.estimate(inspection, options, replace(device, context_bytes=known))
        return self.learned.footprint(self.key(inspection, options, device), law)

    def key(self, inspection: Inspection, options: ModelOptions, device: DeviceTraits) -> str:
        """What such a load is known by; empty where the engine's version is unknown."""
        if self.build is None:
            return ""
        settled, place = _settled(inspection, options), replace(device, context_bytes=None)
        return load_key(inspection, settled, self.build, place)

    def beside(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Beside:
        """What the law says of all that is no buffer. Raises as Engine.estimate does."""
        options = _settled(inspection, options)

        def context(known: int | None) -> int:
            law = self.engine.estimate(inspection, options, replace(device, context_bytes=known))
            return sum(each.bytes for each in law.items if each.what is FootprintWhat.CONTEXT)

        own = context(0)
        process = context(None) - own
        # Of other engines' processes nobody stated how little they may take for good.
        is_known = self.engine.kind is EngineKind.LLAMA_CPP and device.kind is DeviceKind.HOST
        least = min(process, HOST_PROCESS_LEAST_BYTES) if is_known else process
        return Beside(process_bytes=process, own_bytes=own, least_bytes=least)

    def host_bytes(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> int:
        """The RAM that it needs beside a card; 0 on the host itself."""
        return self.engine.host_bytes(inspection, _settled(inspection, options), device)

    def devices_needed(self, options: ModelOptions) -> int:
        """Over how many devices one load is spread."""
        return self.engine.devices_needed(options)


def _settled(inspection: Inspection, options: ModelOptions) -> ModelOptions:
    """The options with what the files settle: a load of such a model serves embeddings."""
    if inspection.kind is ModelKind.EMBEDDING:
        return replace(options, embedding=True)
    return options
