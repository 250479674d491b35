"""What the ledger may answer, told from the world alone: an independent reading of the rules.

The judge keeps the raw world (which process holds what, which bytes a card still shows) and every
reservation's last told version. It never asks the ledger what is free: it counts for itself.
`room` is what is physically there beside all promises: a grant beyond it is a lie. `sure` leaves
out whatever could be anybody's: a refusal below it is one too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpud.clock import Moment
from gpud.ledger.reservation import Reservation, ReservationState, ReserveRequest, Sharing

AGEING, BOUND, GRACE, TENURE, RATIO, RELEASE_DEADLINE = 60.0, 30.0, 3.0, 2.0, 2.0, 10.0
ENDED = {ReservationState.RELEASED, ReservationState.EXPIRED, ReservationState.REVOKED}


@dataclass(slots=True)
class Card:
    """A device as it is: bytes of living processes, and of dead ones that it still shows."""

    uuid: str
    total: int
    reserve: int
    living: dict[int, tuple[int, str | None]] = field(default_factory=dict)  # pid → bytes, claim
    stuck: dict[str | None, int] = field(default_factory=dict)  # former claim → bytes
    lost: bool = False
    hot: bool = False
    cordoned: bool = False

    @property
    def used(self) -> int:
        return sum(size for size, _ in self.living.values()) + sum(self.stuck.values())

    @property
    def refuses(self) -> bool:
        return self.lost or self.hot or self.cordoned


class Judge:
    def __init__(self, cards: dict[str, Card]) -> None:
        self.cards = cards
        self.known: dict[str, Reservation] = {}
        self.leaked: dict[str, int] = {}
        self.asked_to_end: set[str] = set()
        self.draining = False
        self.capacity: dict[str, int] = {}  # what promises could have of each device at most

    # Counting.

    def holders(self, uuid: str, but: str = "") -> dict[str, int]:
        return {
            id_: grant.bytes
            for id_, held in self.known.items()
            if held.booked and id_ != but
            for grant in held.grants
            if grant.device == uuid
        }

    def room(self, uuid: str, but: str = "") -> int:
        """Bytes that are really there for one more, whatever everybody else may still do.

        Who is granted may fill the promise anew beside what dead processes left; who has ended and
        has nothing alive takes no more than is left.
        """
        card, holders = self.cards[uuid], self.holders(uuid, but)
        held = sum(
            max(size, self.alive(uuid, id_))
            for id_, size in holders.items()
            if self.alive(uuid, id_) or self.known[id_].state is ReservationState.GRANTED
        )
        others = sum(s for s, c in card.living.values() if c not in holders and c != but)
        return card.total - held - others - sum(card.stuck.values())

    def sure(self, uuid: str) -> int:
        """Bytes that nobody could have a claim to."""
        card, holders = self.cards[uuid], self.holders(uuid)
        held = sum(max(size, self.alive(uuid, id_)) for id_, size in holders.items())
        others = sum(size for size, claim in card.living.values() if claim not in holders)
        stuck = sum(card.stuck.values()) + self.leaked.get(uuid, 0)
        return card.total - card.reserve - held - others - stuck

    def foreign(self, uuid: str) -> int:
        """What processes use that no promise here has."""
        holders = self.holders(uuid)
        living = self.cards[uuid].living.values()
        return sum(size for size, claim in living if claim not in holders)

    def alive(self, uuid: str, id_: str) -> int:
        return sum(size for size, claim in self.cards[uuid].living.values() if claim == id_)

    # Judging a change.

    def told(self, new: Reservation, now: Moment) -> None:
        """A new version of a reservation. Raises AssertionError where it may not be."""
        old = self.known.get(new.id)
        if old is not None:
            assert new.generation >= old.generation
        if new.state is ReservationState.GRANTED and (old is None or old.queued):
            self._granted(new, now)
        if old is not None and old.state is not new.state:
            self._moved(old, new, now)
        if new.notice is not None and (old is None or old.notice is None):
            self._noticed(new, now)
        self.known[new.id] = new

    def _granted(self, new: Reservation, now: Moment) -> None:
        assert not self.draining, "granted while draining"
        for grant in new.grants:
            card, others = self.cards[grant.device], self.holders(grant.device, new.id)
            assert not card.refuses, f"granted on {card}"
            assert grant.bytes <= self.room(grant.device, new.id), "more than is there"
            booked = sum(others.values()) + grant.bytes + self.leaked.get(grant.device, 0)
            assert booked <= card.total - card.reserve, "more than capacity"
            if new.exclusive and not grant.beside:
                assert not others, "alone, with others there"
            alone = [id_ for id_ in others if self._is_whole(id_, grant.device)]
            assert not alone, "beside one that is alone"
        first = next(iter(self._before(new)), None)
        if first is not None:
            self._passed(new, first)

    def _is_whole(self, id_: str, uuid: str) -> bool:
        held = self.known[id_]
        return held.exclusive and any(g.device == uuid and not g.beside for g in held.grants)

    def _before(self, new: Reservation) -> list[Reservation]:
        waiting = [each for each in self.known.values() if each.queued and each.id != new.id]
        ahead = [each for each in waiting if place(each) < place(new)]
        return sorted(ahead, key=place)

    def _passed(self, new: Reservation, first: Reservation) -> None:
        """Who passes moves the first one's moment, as leases stand, by a bounded time at most."""
        without = self._moment(first, [])
        beside = self._moment(first, [new])
        if beside <= without + 1e-6:
            return
        assert new.deadline is not None, "a promise without end passed one that waits"
        until = first.created.boottime + BOUND
        assert new.deadline.boottime <= until + 1e-6, "passed for longer than the bound"
        assert first.id in {each.by for each in new.passes}

    def _moment(self, waiting: Reservation, also: list[Reservation]) -> float:
        """When it comes in if every lease ends as it stands: counted device by device."""
        best, request = float("inf"), waiting.request
        for shape in request.shapes:
            moments = sorted(
                self._device_moment(uuid, shape.bytes, also, request.exclusive)
                for uuid in shape.devices or (u for u in self.cards if u != "U-host")
            )
            if len(moments) >= shape.device_count:
                best = min(best, moments[shape.device_count - 1])
        if request.host_bytes:
            ram = self._device_moment("U-host", request.host_bytes, also, False)
            best = max(best, ram)
        return best

    def _device_moment(self, uuid: str, size: int, also: list[Reservation], alone: bool) -> float:
        card = self.cards[uuid]
        strangers = alone and self.foreign(uuid) > 0
        if card.refuses or strangers or size > self.capacity[uuid]:
            return float("inf")
        new = {each.id for each in also}
        held = [each for each in self.known.values() if each.booked and each.id not in new]
        ends = sorted(
            (_end(each), max(grant.bytes, self.alive(uuid, each.id)))
            for each in (*held, *also)
            for grant in each.grants
            if grant.device == uuid
        )
        left = sum(taken for _, taken in ends)
        moment = 0.0
        for end, taken in ends:
            if left + size <= self.capacity[uuid] and not (alone and left):
                break
            left, moment = left - taken, end
        fits = left + size <= self.capacity[uuid] and not (alone and left)
        return moment if fits else float("inf")

    def _moved(self, old: Reservation, new: Reservation, now: Moment) -> None:
        ending = new.ending if new.state is ReservationState.RELEASING else new.state
        if old.state is ReservationState.RELEASING:
            assert new.state in ENDED
            self._came_back(old, now)
            return
        if ending is ReservationState.RELEASED:
            assert new.id in self.asked_to_end, "ended, and nobody asked"
        if ending is ReservationState.EXPIRED:
            assert old.deadline is not None
            assert old.deadline.remaining_seconds(now) <= 0, "ended before its time"
        if ending is ReservationState.REVOKED:
            assert old.notice is not None, "revoked without notice"
            assert old.notice.deadline.remaining_seconds(now) <= 0, "revoked within its grace"
            assert new.generation == old.generation + 1
        if new.state in ENDED and old.booked and old.grants:
            assert not old.bound, "bytes that were in use freed unseen"

    def _came_back(self, old: Reservation, now: Moment) -> None:
        """Free again only when the card showed it, or was given its time."""
        assert old.release_deadline is not None
        waited = old.release_deadline.remaining_seconds(now) <= 0
        for grant in old.grants:
            card = self.cards[grant.device]
            if card.lost:
                assert waited
                continue
            assert not self.alive(grant.device, old.id), "freed while its processes live"
            # What was stuck there before cannot be told from it: more than before must be gone.
            before = grant.residue_before_bytes or 0
            assert waited or sum(card.stuck.values()) <= max(before, card.reserve)

    def _noticed(self, new: Reservation, now: Moment) -> None:
        assert new.notice is not None
        by, old = self.known[new.notice.by], self.known[new.id]
        assert by.queued, "notice for one that does not wait"
        assert new.request.preemptible
        assert new.request.priority < by.request.priority
        assert old.granted is not None
        assert -old.granted.remaining_seconds(now) >= TENURE - 1e-6
        assert new.notice.deadline.remaining_seconds(now) >= GRACE - 1e-6

    # Judging a state.

    def must_have_ended(self, now: Moment) -> list[str]:
        """Leases and waits whose time has come, and which go on."""
        return [
            held.id
            for held in self.known.values()
            if held.queued or held.state is ReservationState.GRANTED
            if held.deadline is not None and held.deadline.remaining_seconds(now) <= 0
        ]

    def first_fits(self) -> str:
        """The first of the queue, if it surely fits: it should have been granted."""
        waiting = sorted((each for each in self.known.values() if each.queued), key=place)
        if not waiting or self.draining:
            return ""
        return waiting[0].id if self.surely_fits(waiting[0].request) else ""

    def surely_fits(self, request: ReserveRequest) -> bool:
        return any(
            sum(
                self._surely(uuid, shape.bytes, request)
                for uuid in shape.devices or (u for u in self.cards if u != "U-host")
            )
            >= shape.device_count
            for shape in request.shapes
        ) and (not request.host_bytes or self._surely("U-host", request.host_bytes, None))

    def _surely(self, uuid: str, size: int, request: ReserveRequest | None) -> bool:
        card, holders = self.cards[uuid], self.holders(uuid)
        if card.refuses or size > self.sure(uuid):
            return False
        if any(self._is_whole(id_, uuid) for id_ in holders):
            return False
        alone = request is not None and request.sharing is Sharing.EXCLUSIVE
        strangers = any(claim not in holders for _, claim in card.living.values())
        return not (alone and (holders or strangers))


def _end(held: Reservation) -> float:
    """What has ended and is still shown is given the time that the rules give it."""
    if held.state is ReservationState.RELEASING and held.release_deadline is not None:
        return held.release_deadline.boottime
    deadlines = [held.deadline, held.notice.deadline if held.notice else None]
    return min((each.boottime for each in deadlines if each is not None), default=float("inf"))


def place(each: Reservation) -> tuple[float, float]:
    """Earlier by a class for each ageing span of waiting."""
    return (each.created.boottime - AGEING * each.request.priority, each.created.wall)
