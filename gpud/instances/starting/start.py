"""The phase START: an engine spawned behind a gate, let go once its promise is seen to hold."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.devices.topology import format_cpus
from gpud.engines.engine import Engine, EngineProgram, StartRequest
from gpud.errors import DeviceShortage, DeviceUnavailable, EngineMissing, GpudError
from gpud.failpoints import around
from gpud.instances.instance import Gate, Instance
from gpud.instances.life import House, Life
from gpud.instances.limits import limits
from gpud.instances.starting.admission import Held, HostExhausted, check_contexts, check_room
from gpud.instances.starting.confinement import (
    IN_CGROUP,
    LOCKED,
    LockTerms,
    Nearby,
    binding_words,
    nearby,
    swap_words,
)
from gpud.instances.starting.handing import Handed, hand_over
from gpud.instances.starting.ignoring import ignored_words
from gpud.instances.starting.ports import LOOPBACK
from gpud.instances.tree import locking
from gpud.instances.tree.binding import Binding
from gpud.instances.tree.launcher import LaunchFailed, LaunchSpec, Tree
from gpud.ledger.admission.policy import overload, state_rule
from gpud.ledger.change import Change
from gpud.ledger.reservation import Reservation
from gpud.models.catalogue import Inspection
from gpud.models.model import Limits, Model

log = structlog.get_logger()

# A healthy device is read within milliseconds; one that is not has said so by then.
FRESH_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is to be started, for a life whose promise is made."""

    life: Life
    engine: Engine
    program: EngineProgram
    model: Model
    inspection: Inspection
    restarts: int  # how often it was started again, once this engine runs

    async def run(self) -> Tree:
        """Spawn it, gated, and open the gate: no engine runs before its record is durable.

        The caller has the turn on the instance's devices. Raises EngineMissing, HostExhausted,
        MemoryTaken, ContextsRefused, DeviceUnavailable, ModelFileInvalid; what was begun then
        stands in the life's record.
        """
        life, instance = self.life, self.life.instance
        reservation = life.house.promises.ledger.books.reservations.get(instance.reservation or "")
        near = nearby(
            (sample.info for sample in self._samples()), life.house.node_count, life.house.policy
        )
        if reservation is not None:
            contexts = self.engine.contexts_per_device(instance.options)
            check_contexts(instance, contexts, reservation, self._samples())
        # They come while the shim starts; nobody else starts on these devices meanwhile.
        asked = life.house.clock.now().boottime
        life.house.sample_now()
        try:
            await self.engine.look(self.model)
            with await hand_over(life, self.model, self.inspection) as handed:
                spec, swap = self._prepare(near, handed)
                with around("launch.spawn"):
                    tree = await life.house.launcher.spawn(spec)
            life.tree = tree
            with around("launch.spawned"):
                await life.commit(Change(), gate=Gate.SPAWNED, shim=tree.identity)
            if life.house.policy.oom_prevention and reservation is not None:
                await self._recheck(reservation, asked)
            # What it inherited stays what it is; one that was written to, or whose name is
            # another file's by now, is not what was asked for any more.
            await life.house.catalogue.confirm(self.model, self.inspection)
            bound = life.house.promises.ledger.bind(instance.reservation or "")
            with around("launch.go"):
                started = life.event("instance.started")
                await life.commit(bound, started, gate=Gate.GO, restarts=self.restarts)
            with around("launch.gate"):
                pid = await tree.go()
        except LaunchFailed as error:
            raise self._not_launched(error) from error
        self._note_started(tree, pid, swap, near)
        return tree

    def _not_launched(self, error: LaunchFailed) -> GpudError:
        """What the failure of the launcher says of: the host, or the program."""
        instance = self.life.instance
        if error.is_shortage:
            return HostExhausted(instance=instance.name, problem=error.problem)
        return EngineMissing(
            engine=instance.engine.value, program=self.program.path, problem=str(error)
        )

    def _samples(self) -> tuple[Sample, ...]:
        """The newest of the instance's devices."""
        snapshot = self.life.house.snapshots.latest
        found = snapshot.samples if snapshot is not None else ()
        return tuple(each for each in found if each.info.uuid in self.life.instance.devices)

    def _prepare(self, near: Nearby, handed: Handed) -> tuple[LaunchSpec, str]:
        """What is spawned, and how it is to be kept from swap."""
        life, instance = self.life, self.life.instance
        cgroup = _make_cgroup(life.house, instance)
        cpus = self._choose_cpus(near)
        terms = LockTerms(
            engine_can=self.engine.can_lock(self.program),
            needed_bytes=self.inspection.size_bytes,
            limit_bytes=locking.limit_bytes(),
        )
        swap = swap_words(life.house.policy, terms, in_cgroup=bool(cgroup))
        totals = [
            sample.info.memory_total_bytes
            for sample in self._samples()
            if sample.info.memory_total_bytes is not None
        ]
        request = StartRequest(
            model=self.model,
            options=instance.options,
            model_path=handed.model_path,
            key_path=handed.key_path,
            mmproj_path=handed.mmproj_path,
            host=LOOPBACK,
            port=instance.port or 0,
            visible_devices=tuple(
                sample.info.uuid
                for sample in self._samples()
                if sample.info.kind is not DeviceKind.HOST
            ),
            directory=life.folder,
            lock_memory=swap == LOCKED,
            key=handed.key,
            inspection=self.inspection,
            grant_bytes=instance.footprint.total_bytes if instance.footprint else 0,
            device_bytes=min(totals, default=None),
        )
        command = self.engine.command(self.program, request)
        spec = LaunchSpec(
            instance=instance.id,
            reservation=instance.reservation or "",
            argv=command.argv,
            environment=command.environment,
            directory=life.folder,
            token=secrets.token_hex(16),
            binding=Binding(
                cpus=cpus,
                memory_node=near.memory_node,
                cgroup=cgroup,
                lock_memory=swap == LOCKED or bool(instance.options.mlock),
            ),
            files=tuple(file.fileno() for file in handed.files),
        )
        return spec, swap

    def _choose_cpus(self, near: Nearby) -> tuple[int, ...]:
        """Those near its devices, or as many of them, and of others, as its limit says."""
        life, instance = self.life, self.life.instance
        if instance.limits.cpus is None:
            return tuple(sorted(near.cpus))
        others = (each for each in life.house.roll() if each.id != instance.id)
        allowed = os.sched_getaffinity(0)
        cpus = limits.choose(instance.limits.cpus, near.cpus, allowed, others)
        # At once, so that who starts at the same time takes others.
        life.instance = replace(instance, cpu_affinity=format_cpus(cpus))
        return cpus

    async def _recheck(self, reservation: Reservation, asked: float) -> None:
        """The bytes that were promised are still there, by samples that were asked for then."""
        house = self.life.house
        samples = await _fresh(house, [grant.device for grant in reservation.grants], asked)
        check_devices(house, self.life.instance, reservation, samples)

    def _limit_words(self, bound: Binding) -> str:
        cgroups, instance = self.life.house.cgroups, self.life.instance
        kept = limits.Kept(
            in_cgroup=bool(bound.cgroup),
            has_quota=cgroups is not None and cgroups.has_quota(instance.id),
            cpus=bound.cpus,
            problems=bound.problems,
        )
        return limits.words(instance.limits, kept)

    def _note_started(self, tree: Tree, pid: int, swap: str, near: Nearby) -> None:
        """What it runs as, and what the shim could bind it to, which may be less than wanted."""
        life, bound = self.life, tree.bound()
        if bound.problems:
            log.warning(
                "instance.not_bound", instance=life.instance.name, problems=list(bound.problems)
            )
        if swap == IN_CGROUP and not bound.cgroup:
            swap = f"not enforced: {'; '.join(bound.problems) or 'its cgroup was not joined'}"
        ignored = ignored_words(
            life.instance.engine,
            life.instance.options,
            on_host=all(each.info.kind is DeviceKind.HOST for each in self._samples()),
            is_locked=swap == LOCKED,
        )
        life.note(
            pid=pid,
            cpu_affinity=format_cpus(bound.cpus),
            memory_node=bound.memory_node,
            swap=swap,
            containment="cgroup" if bound.cgroup else "session",
            limits_enforced=self._limit_words(bound),
            options_ignored=ignored,
        )
        words = binding_words(bound.cpus, bound.memory_node) or near.words
        parts = (f"pid {pid}", words, *bound.problems, ignored)
        life.show(detail="; ".join(part for part in parts if part))


def check_devices(
    house: House, instance: Instance, reservation: Reservation, samples: Mapping[str, Sample]
) -> None:
    """Whether its devices, by these samples, take what it was promised.

    Raises MemoryTaken, DeviceUnavailable.
    """
    charges, books = house.promises.ledger.charges(), house.promises.ledger.books
    for grant in reservation.grants:
        sample, book = samples.get(grant.device), books.device(grant.device)
        rule = refusal(sample, house.clock.now())
        if sample is None or rule:
            raise DeviceUnavailable(shortages=(_unusable(grant.device, sample, rule),))
        carrier = book.carrier(reservation.id) or reservation.id
        others = {id_: size for id_, size in book.holders.items() if id_ != carrier}
        if carrier != reservation.id:
            # Those beside it in a standing promise have their share of that one.
            beside = books.inside(carrier, grant.device)
            others |= {id_: size for id_, size in beside.items() if id_ != reservation.id}
        charge = charges.get(grant.device)
        observed = charge.observed_bytes if charge is not None else {}
        held = Held(own=grant.bytes, others=others, observed=observed)
        check_room(instance.name, sample, held)
        # Only now: where somebody took its bytes, that is the reason to tell.
        rule = overload(sample, grant.bytes, house.policy.critical_load_percent)
        if rule:
            raise DeviceUnavailable(shortages=(_unusable(grant.device, sample, rule),))


def _make_cgroup(house: House, instance: Instance) -> str:
    """The folder of a cgroup with its limits, and without swap; empty where none can be had."""
    is_wanted = house.policy.swap_disabled or instance.limits != Limits()
    if house.cgroups is None or not is_wanted:
        return ""
    try:
        swaps = not house.policy.swap_disabled
        return house.cgroups.make(instance.id, instance.limits, swaps=swaps)
    except OSError as error:
        log.warning("instance.no_cgroup", instance=instance.name, problem=str(error))
        return ""


async def _fresh(house: House, uuids: Iterable[str], asked: float) -> dict[str, Sample]:
    """Samples of these devices since they were asked for; the newest when none come in time."""
    wanted, found = set(uuids), dict[str, Sample]()
    with suppress(TimeoutError):
        async with asyncio.timeout(FRESH_SECONDS):
            async for _, snapshot in house.snapshots.follow():
                found = {s.info.uuid: s for s in snapshot.samples if s.info.uuid in wanted}
                if len(found) == len(wanted) and all(_tells(s, asked) for s in found.values()):
                    break
    return found


def _tells(sample: Sample, asked_boottime: float) -> bool:
    """Whether it is of after the question, its process list too, or no answer is to be had."""
    if sample.health is not Health.HEALTHY:
        return True
    if sample.processes is None:
        return sample.boottime >= asked_boottime
    return sample.listed_boottime is not None and sample.listed_boottime >= asked_boottime


def refusal(sample: Sample | None, now: Moment) -> str:
    """Why nothing starts on a device whatever its bytes; empty when something may.

    As for a grant, but for a cordon: what was promised before it may start.
    """
    return "it is not there any more" if sample is None else state_rule(sample, now)


def _unusable(uuid: str, sample: Sample | None, rule: str) -> DeviceShortage:
    return DeviceShortage(
        device=f"devices/{uuid}",
        alias=sample.info.alias if sample is not None else uuid,
        grantable_bytes=None,
        total_bytes=sample.info.memory_total_bytes if sample is not None else None,
        reserve_bytes=0,
        granted_bytes=0,
        foreign_bytes=0,
        unattributed_bytes=0,
        leaked_bytes=0,
        rule=rule,
    )
