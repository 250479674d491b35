"""Pure: what a load asks of the ledger: its bytes by device, its RAM beside a card, its devices.

The load and its rehearsal (validate_only) both ask by this, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from msgspec import structs

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.instances.instance import Instance, PromisedFile
from gpud.instances.measuring.estimator import Estimator
from gpud.instances.terms import LoadTerms
from gpud.ledger.reservation import ReserveRequest, Shape
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.model import Footprint

_HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a load needs, on a card and on the host; None: it may not be placed there.

    On a card that is the most that any of the candidates would take; over several devices it is
    needed on each of them.
    """

    cards: tuple[str, ...]  # UUIDs of the cards named; none: all there are, if any
    hosts: tuple[str, ...]
    on_card: Footprint | None
    on_host: Footprint | None
    beside_bytes: int  # RAM beside whatever card it comes to
    device_count: int = 1

    @property
    def dearest(self) -> Footprint:
        """The most that it takes wherever it comes."""
        found = [each for each in (self.on_card, self.on_host) if each is not None]
        return max(found, key=lambda each: each.total_bytes)

    def on(self, uuid: str) -> Footprint:
        """What it takes on the device that it came to."""
        found = self.on_host if uuid in self.hosts else self.on_card
        return replace(found or self.dearest, device_uuid=uuid)

    def request(self, instance: Instance, terms: LoadTerms) -> ReserveRequest:
        """The promise to ask for; `terms` are those that the need was found with.

        A card comes before the host where both would do. On the host its footprint has all of its
        RAM, so there the request is for what is not asked beside already: no byte is asked twice.
        (Of a model of a few MiB what is asked beside may be more; then it has that.)
        """
        if self.on_card is None or self.on_host is None:
            request = terms.request(instance, self.dearest.total_bytes)
            count = self.device_count if self.on_card is not None else 1
            return structs.replace(request, host_bytes=self.beside_bytes, device_count=count)
        rest = max(1, self.on_host.total_bytes - self.beside_bytes)
        return structs.replace(
            terms.request(instance, self.on_card.total_bytes),
            devices=self.cards,
            device_count=self.device_count,
            host_bytes=self.beside_bytes,
            alternatives=(Shape(bytes=rest, devices=self.hosts),),
        )


def need(
    estimator: Estimator,
    inspection: Inspection,
    instance: Instance,
    terms: LoadTerms,
    samples: Iterable[Sample],
) -> Need:
    """What a load with settled terms needs. Raises as Engine.estimate does."""
    samples = tuple(samples)
    candidates = [each for each in samples if _may_carry(each, terms)]
    cards = [each for each in candidates if each.info.kind is not DeviceKind.HOST]
    hosts = [each for each in candidates if each.info.kind is DeviceKind.HOST]
    traits = {DeviceTraits(kind=card.info.kind, model_name=card.info.model_name) for card in cards}
    options = instance.options
    footprints = [estimator.estimate(inspection, options, each) for each in traits]
    # Without RAM as a device, or within a standing reservation (which has its own), none is asked.
    has_host = any(each.info.kind is DeviceKind.HOST for each in samples)
    beside = [
        estimator.host_bytes(inspection, options, each)
        for each in traits
        if has_host and terms.within is None
    ]
    return Need(
        cards=tuple(card.info.uuid for card in cards) if terms.devices else (),
        hosts=tuple(host.info.uuid for host in hosts),
        on_card=max(footprints, key=lambda each: each.total_bytes, default=None),
        on_host=estimator.estimate(inspection, options, _HOST) if hosts or not traits else None,
        beside_bytes=max(beside, default=0),
        device_count=estimator.devices_needed(options),
    )


def law_bytes(
    estimator: Estimator, inspection: Inspection, instance: Instance, samples: Iterable[Sample]
) -> int | None:
    """What it takes on the dearest of its own devices by the law alone, without a margin.

    What was learned since another moment plays no part, so two of these tell two contents of its
    files apart. None: none of its devices is there.
    """
    law = replace(estimator, build=None)
    traits = {
        _HOST
        if each.info.kind is DeviceKind.HOST
        else DeviceTraits(kind=each.info.kind, model_name=each.info.model_name)
        for each in samples
        if each.info.uuid in instance.devices
    }
    found = [law.estimate(inspection, instance.options, each) for each in traits]
    return max((each.total_bytes - each.margin_bytes for each in found), default=None)


def promised_files(inspection: Inspection) -> tuple[PromisedFile, ...]:
    """The files as the record keeps them."""
    return tuple(
        PromisedFile(
            path=str(each.path),
            inode=each.inode,
            size_bytes=each.size_bytes,
            mtime_ns=each.mtime_ns,
        )
        for each in inspection.artifacts
    )


def _may_carry(sample: Sample, terms: LoadTerms) -> bool:
    if terms.devices:
        return sample.info.uuid in terms.devices
    return sample.info.kind is not DeviceKind.HOST
