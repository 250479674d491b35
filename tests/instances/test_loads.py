"""What a load asks of the ledger, whom its failure frees, and how long it keeps its turn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Pressure, Sample, Thermal
from gpud.errors import DeviceUnavailable, GpudError, QuotaExceeded
from gpud.instances import load as load_module
from gpud.instances.instance import Instance, InstanceState, LoadPhase, UnloadPhase
from gpud.instances.life import StopOrder
from gpud.instances.roster import LoadRequest
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.launcher import LaunchSpec
from gpud.ledger.admission.policy import OwnerQuota, QuotaSettings
from gpud.ledger.change import Change
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Reservation
from gpud.models.model import ModelOptions
from gpud.promises.promises import Promises
from gpud.promises.requests import Call
from gpud.store import Committed, Row
from tests.fakes.cards import GIB, process, sample
from tests.fakes.clock import FakeClock
from tests.fakes.launcher import Behaviour, FakeLauncher, FakeTree
from tests.instances.town import PATIENCE_SECONDS, Town, town
from tests.ledger.desk import asking

CARD = sample(0)
HOST = sample(kind=DeviceKind.HOST, total=64 * GIB)
READY = InstanceState.READY
ENDED = (InstanceState.STOPPED, InstanceState.FAILED)
ON_CARD = LoadTerms(devices=("U-gpu0",))


def promise(place: Town, name: str) -> Reservation:
    held = place.promises.durable.reservations[place.roster.get(name).reservation or ""]
    assert isinstance(held, Reservation)
    return held


def booked(place: Town, uuid: str) -> tuple[int, int]:
    """Bytes booked on a device, in the newest books and in the durable ones."""
    newest, durable = place.promises.ledger.books, place.promises.durable
    return newest.device(uuid).granted_bytes, durable.device(uuid).granted_bytes


# A failure between the decision and its record.


class Clumsy(Promises):
    """Fails once between a grant and its record, as an append to a store might."""

    failed = False

    def commit(
        self,
        change: Change,
        rows: tuple[Row, ...] = (),
        on_durable: Callable[[], None] = lambda: None,
    ) -> asyncio.Future[Committed]:
        if not self.failed and any(each.booked for each in change.reservations):
            self.failed = True
            raise OSError(24, "Too many open files")
        return super().commit(change, rows, on_durable)


async def test_what_fails_after_the_decision_frees_its_bytes(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,), promises=Clumsy) as place:
        ended = await place.until(await place.load(ON_CARD), *ENDED)
        assert isinstance(place.promises, Clumsy)
        assert place.promises.failed
        assert ended.state is InstanceState.FAILED
        assert booked(place, "U-gpu0") == (0, 0)


async def test_where_no_port_is_found_the_bytes_are_freed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the daemon's file descriptors run out."""

    def bind(_: socket.socket, __: object) -> None:
        raise OSError(24, "Too many open files")

    async with town(tmp_path, tiny_model, (CARD,)) as place:
        monkeypatch.setattr(socket.socket, "bind", bind)
        ended = await place.until(await place.load(ON_CARD), *ENDED)
        assert (ended.state, ended.port) == (InstanceState.FAILED, None)
        assert booked(place, "U-gpu0") == (0, 0)


async def test_who_waited_for_its_bytes_gets_a_port_that_nobody_was_given_meanwhile(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lowest(roll: Iterable[Instance]) -> int:
        """As a kernel may do that gives the same free port twice: nobody listens there yet."""
        taken = {each.port for each in roll if not each.ended}
        return next(port for port in range(40_000, 50_000) if port not in taken)

    monkeypatch.setattr(load_module, "free_port", lowest)
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        place.engine.weights = 14 * GIB
        first = await place.load(ON_CARD, owner="anna")
        await place.until(first, READY)
        waiting = await place.load(replace(ON_CARD, max_wait_seconds=3600.0), owner="bert")
        await place.waits(waiting)
        place.engine.weights = GIB
        meanwhile = await place.until(await place.load(ON_CARD, owner="cleo"), READY)
        place.roster.stop(first, StopOrder(actor="anna", grace_seconds=0.0, force=True))
        served = await place.until(waiting, READY)
        assert len({served.port, meanwhile.port}) == 2


# The same question for a load and for its rehearsal.


async def rehearse(place: Town, terms: LoadTerms) -> tuple[int, str]:
    request = LoadRequest(model="tiny", options=ModelOptions(), terms=terms, owner="anna")
    told = await place.roster.propose(request)
    return told.footprint.total_bytes, told.devices[0]


async def ram_beside(place: Town) -> int:
    """What a load on the card takes of the host."""
    made = await place.until(await place.load(ON_CARD), InstanceState.READY)
    (grant,) = (each for each in promise(place, made.name).grants if each.beside)
    return grant.bytes


async def test_a_card_comes_before_the_host_and_its_ram_is_charged(
    tmp_path: Path, tiny_model: Path
) -> None:
    either = LoadTerms(devices=("U-host", "U-gpu0"))
    async with town(tmp_path, tiny_model, (CARD, HOST)) as place:
        beside = await ram_beside(place)
        told = await rehearse(place, either)
        made = await place.until(await place.load(either), InstanceState.READY)
        assert beside > 0
        assert {g.device: g.bytes for g in promise(place, made.name).grants} == {
            "U-gpu0": told[0],
            "U-host": beside,
        }
        assert told[1] == "U-gpu0"
        assert made.footprint is not None
        assert made.footprint.total_bytes == told[0]
        assert booked(place, "U-host")[1] == 2 * beside


async def test_on_the_host_itself_no_byte_is_asked_twice(tmp_path: Path, tiny_model: Path) -> None:
    full = sample(0, used=24 * GIB, kind=DeviceKind.SIMULATED)
    async with town(tmp_path, tiny_model, (full, HOST)) as place:
        alone = await rehearse(place, LoadTerms(devices=("U-host",)))
        either = LoadTerms(devices=("U-gpu0", "U-host"))
        assert await rehearse(place, either) == alone
        made = await place.until(await place.load(either), InstanceState.READY)
        (grant,) = promise(place, made.name).grants
        assert (grant.device, grant.bytes, grant.beside) == ("U-host", alone[0], False)
        assert made.footprint is not None
        assert made.footprint.total_bytes == alone[0]


async def test_a_rehearsal_is_refused_for_the_ram_that_the_load_would_lack(
    tmp_path: Path, tiny_model: Path
) -> None:
    small = sample(kind=DeviceKind.HOST, total=1024**2)
    async with town(tmp_path, tiny_model, (CARD, small)) as place:
        with pytest.raises(GpudError) as rehearsed:
            await rehearse(place, ON_CARD)
        name = await place.load(ON_CARD)
        await place.until(name, *ENDED)
        assert type(place.roster.error(name)) is type(rehearsed.value)
        assert str(place.roster.error(name)) == str(rehearsed.value)


@pytest.mark.parametrize("device", ["U-host", "U-gpu0"])
async def test_a_standing_share_says_where_its_loads_go(
    tmp_path: Path, tiny_model: Path, device: str
) -> None:
    beside = GIB if device == "U-gpu0" else 0
    share = asking(
        8, devices=(device,), standing=True, ttl_seconds=None, max_wait_seconds=None,
        host_bytes=beside,
    )  # fmt: skip
    within = LoadTerms(within="voice")
    async with town(tmp_path, tiny_model, (CARD, HOST)) as place:
        place.promises.stand({"voice": share}, keep=frozenset())
        told = await rehearse(place, within)
        made = await place.until(await place.load(within), InstanceState.READY)
        assert [(g.device, g.bytes) for g in promise(place, made.name).grants] == [
            (device, told[0])
        ]
        assert told[1] == device
        assert booked(place, device)[1] == 8 * GIB


# The gate, and the turn.


async def test_nothing_starts_on_a_card_that_became_critically_hot(
    tmp_path: Path, tiny_model: Path
) -> None:
    hot = replace(CARD, thermal=Thermal.CRITICAL)
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        place.house.sample_now = lambda: place.show(hot)
        name = await place.load(ON_CARD)
        await place.until(name, *ENDED)
        error = place.roster.error(name)
        assert isinstance(error, DeviceUnavailable)
        assert "critically hot" in str(error)
        assert all(not tree.lives for tree in place.launcher.trees)


async def test_a_card_that_became_full_meanwhile_takes_no_load_that_fills_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Of its neighbour's promise: the bytes are there, but the policy says no."""
    full = replace(CARD, pressure=Pressure.CRITICAL)
    used = process(7, int(22.5 * GIB), "other")
    full = replace(
        full,
        readings=full.readings.changed(memory_used_bytes=used.used_bytes),
        processes=(used,),
        memory_used_at_list_bytes=used.used_bytes,
    )
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        neighbour = asking(22.5, devices=("U-gpu0",), ttl_seconds=None)
        await place.promises.reserve(neighbour, "other", Call(method="Reserve"))
        place.house.sample_now = lambda: place.show(full)
        name = await place.load(ON_CARD)
        await place.until(name, *ENDED)
        error = place.roster.error(name)
        assert isinstance(error, DeviceUnavailable)
        assert "its memory pressure is CRITICAL (94 % used)" in str(error)


async def test_the_start_waits_for_a_process_list_of_after_its_question(
    tmp_path: Path, tiny_model: Path
) -> None:
    """A neighbour that has grown is not counted by an old list beside fresh used bytes."""
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        place.clock.advance(1.0)
        asked = asyncio.Event()
        place.house.sample_now = asked.set
        name = await place.load(ON_CARD)
        await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
        place.clock.advance(0.01)
        cheap = replace(place.cards[0], boottime=place.clock.boottime)  # the list is older
        publish(place, cheap)
        await settled(place)
        assert place.launcher.trees[-1].engine_pid() is None
        place.tick()
        await place.until(name, InstanceState.READY)


def publish(place: Town, card: Sample) -> None:
    latest = place.feed.latest
    assert latest is not None
    shown = replace(latest, samples=(card,), boottime=card.boottime, sequence=latest.sequence + 1)
    place.promises.observe(shown)
    place.feed.publish(shown)


async def settled(place: Town) -> None:
    """Everybody has gone as far as they can, with the disk's help."""
    for _ in range(5):
        for _ in range(20):
            await asyncio.sleep(0)
        await place.promises.commit(Change())


class Witness(FakeLauncher):
    """Sees at each spawn which of the earlier trees still live."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.behaviour = Behaviour(at_start=1, leaves_descendants=True)
        self.seen: list[list[bool]] = []

    async def spawn(self, spec: LaunchSpec) -> FakeTree:
        self.seen.append([tree.lives for tree in self.trees])
        return await super().spawn(spec)


async def test_the_turn_is_kept_until_the_failed_tree_is_gone(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        place.house.launcher = witness = Witness(place.clock)
        place.engine.ready = False
        names = [await place.load(ON_CARD, owner=owner) for owner in ("anna", "bert")]
        for name in names:
            assert (await place.until(name, *ENDED)).state is InstanceState.FAILED
        assert witness.seen == [[], [False]]
        assert place.house.turns.holder("U-gpu0") is None


# The queue.


class Counting(Ledger):
    """Counts the walks along the queue for its reasons."""

    walks = 0

    def why_waiting(self, entry: Reservation, now: Moment) -> str:
        self.walks += 1
        return super().why_waiting(entry, now)

    def reasons(self, now: Moment) -> dict[str, str]:
        self.walks += 1
        return super().reasons(now)


async def test_a_movement_of_the_queue_is_found_out_once_for_all_loads(
    tmp_path: Path, tiny_model: Path
) -> None:
    waiting = replace(ON_CARD, max_wait_seconds=600.0)
    async with town(tmp_path, tiny_model, (CARD,), ledger=Counting) as place:
        ledger = place.promises.ledger
        assert isinstance(ledger, Counting)
        ledger.reserve(asking(24, ttl_seconds=None), "all", place.clock.now())
        names = [await place.load(waiting, owner=f"o{at}") for at in range(12)]
        for name in names:
            await place.waits(name)
        ledger.walks = 0
        place.roster.stop(names[0], StopOrder(actor="anna", grace_seconds=0.0, force=True))
        await place.until(names[0], *ENDED)
        details = [await place.waits(name, "waits, 0 before it") for name in names[1:2]]
        await settled(place)
        assert "GiB" in details[0]
        assert 1 <= ledger.walks <= 4


# Quotas.


def quota(**limits: int) -> QuotaSettings:
    return QuotaSettings(default=OwnerQuota(key="quotas.default", **limits))


async def test_a_load_over_its_quota_is_told_the_bytes_that_it_needs(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,), quotas=quota(gpu_bytes=GIB)) as place:
        await place.promises.reserve(asking(1, owner="anna"), "r-1", Call(method="Reserve"))
        id_ = await place.load(ON_CARD)
        failed = await place.until(id_, InstanceState.FAILED)
        error = place.roster.error(id_)
        assert isinstance(error, QuotaExceeded)
        assert failed.footprint is not None
        assert (error.held, error.asked) == (GIB, failed.footprint.total_bytes)


async def test_a_load_that_is_one_too_many_is_told_before_its_file_is_read(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,), quotas=quota(reservations=1)) as place:
        await place.promises.reserve(asking(1, owner="anna"), "r-1", Call(method="Reserve"))
        id_ = await place.load(ON_CARD)
        failed = await place.until(id_, InstanceState.FAILED)
        assert isinstance(place.roster.error(id_), QuotaExceeded)
        assert failed.footprint is None


# What is told of it while it is brought down.


async def test_the_time_of_a_load_that_fails_never_goes_backwards(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        place.engine.ready = False
        name = await place.load(ON_CARD)
        await place.until(name, InstanceState.LOADING)
        seen: list[tuple[LoadPhase | UnloadPhase, float]] = []

        async def follow() -> None:
            async for told in place.roster.follow(name, from_start=True):
                seen.append((told.phase, told.elapsed_seconds))

        following = asyncio.create_task(follow())
        place.clock.advance(30.0)
        place.launcher.trees[-1].end(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await following
        loading = [seconds for phase, seconds in seen if isinstance(phase, LoadPhase)]
        assert loading == sorted(loading)
        assert loading[-1] == pytest.approx(30.0, abs=1.0)
        stopping = [seconds for phase, seconds in seen if isinstance(phase, UnloadPhase)]
        assert stopping == sorted(stopping)
        assert stopping[-1] < 10.0
