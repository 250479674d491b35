"""A load rehearsed: what it would be promised, and whether its engine could be started that way.

Nothing is promised, fetched or started.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.engines.engine import StartRequest
from gpud.errors import EngineMissing
from gpud.instances.instance import Instance
from gpud.instances.life import House
from gpud.instances.measuring.learning import estimator_of
from gpud.instances.needs import need
from gpud.instances.starting.confinement import LOCKED, LockTerms, swap_words
from gpud.instances.starting.ignoring import ignored_words
from gpud.instances.starting.ports import LOOPBACK
from gpud.instances.terms import LoadTerms
from gpud.instances.tree import locking
from gpud.models.catalogue import Inspection
from gpud.models.model import Footprint, Model, ModelKind, ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What a load would come to now. `devices` are UUIDs; the footprint is of the first."""

    footprint: Footprint
    devices: tuple[str, ...]
    options_ignored: str  # which would have no effect there, and why


async def rehearse(house: House, instance: Instance, terms: LoadTerms) -> Rehearsed:
    """Raises what the load itself would, as far as that can be known before its start."""
    engine, entry = house.engines[instance.engine], house.catalogue.get(instance.model)
    program = await engine.program()
    await engine.look(entry)
    inspection = await house.catalogue.inspect(entry)
    if inspection.kind is ModelKind.EMBEDDING:
        instance = replace(instance, options=replace(instance.options, embedding=True))
    terms = replace(terms, max_wait_seconds=0.0)
    terms = terms.settled(house.promises.ledger.books.reservations)
    snapshot = house.snapshots.latest
    samples = snapshot.samples if snapshot is not None else ()
    found = need(await estimator_of(house, entry), inspection, instance, terms, samples)
    reservation = house.promises.propose(found.request(instance, terms))
    uuids = tuple(grant.device for grant in reservation.grants if not grant.beside)
    placed = tuple(sample for sample in samples if sample.info.uuid in uuids)
    instance = replace(instance, devices=uuids, footprint=found.on(uuids[0]))
    model = replace(entry, kind=inspection.kind)
    # What this build has no flag for is refused here, and not once the bytes are promised.
    engine.command(program, _start_request(house, instance, model, inspection, placed))
    ignored = await ignored_options(house, model, instance.options, inspection, placed)
    return Rehearsed(footprint=found.on(uuids[0]), devices=uuids, options_ignored=ignored)


def _start_request(
    house: House,
    instance: Instance,
    model: Model,
    inspection: Inspection,
    placed: Sequence[Sample],
) -> StartRequest:
    """As for a start, with names for what only a start has."""
    folder = house.folder(instance.id)
    totals = [sample.info.memory_total_bytes for sample in placed]
    return StartRequest(
        model=model,
        options=instance.options,
        model_path=folder / "model",
        key_path=folder / "key" if model.api_key_file else None,
        mmproj_path=Path(model.mmproj) if model.mmproj else None,
        host=LOOPBACK,
        port=0,
        visible_devices=tuple(
            each.info.uuid for each in placed if each.info.kind is not DeviceKind.HOST
        ),
        directory=folder,
        inspection=inspection,
        grant_bytes=instance.footprint.total_bytes if instance.footprint else 0,
        device_bytes=min((total for total in totals if total is not None), default=None),
    )


async def ignored_options(
    house: House,
    model: Model,
    options: ModelOptions,
    inspection: Inspection,
    placed: Sequence[Sample],
) -> str:
    """Which would have no effect on these devices, and why; empty: all of them have one."""
    engine, can_lock = house.engines[model.engine], False
    with suppress(EngineMissing):
        can_lock = engine.can_lock(await engine.program())
    terms = LockTerms(
        engine_can=can_lock,
        needed_bytes=inspection.size_bytes,
        limit_bytes=locking.limit_bytes(),
    )
    swap = swap_words(house.policy, terms, in_cgroup=house.cgroups is not None)
    return ignored_words(
        model.engine,
        options,
        on_host=all(each.info.kind is DeviceKind.HOST for each in placed),
        is_locked=swap == LOCKED,
    )
