"""What is known to come: ends of leases that nobody renews, idle engines, who comes in next."""

from __future__ import annotations

from gpud.ledger.reservation import Deadline, Notice
from gpud.telemetry.forecast.known import Known, Plans, known_changes
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import Desk

HOUR = 3600.0
NOTHING = Plans(idle={})


def known(desk: Desk, plans: Plans = NOTHING, horizon: float = HOUR) -> tuple[Known, ...]:
    books = desk.ledger.books
    terms = desk.ledger.charges_of(("U-gpu0",), books)["U-gpu0"]
    return known_changes(terms, books, plans, desk.clock.now(), horizon)


def using(*sizes: tuple[str, int]) -> tuple[object, ...]:
    used = sum(size for _, size in sizes) * GIB
    processes = tuple(
        process(pid, size * GIB, claim) for pid, (claim, size) in enumerate(sizes, start=100)
    )
    return (sample(0, used=used, processes=processes), sample(1))


def test_leases_that_nobody_renews_end_in_their_order() -> None:
    desk = Desk()
    desk.reserve("late", 4, devices=("U-gpu0",), ttl_seconds=1800)
    desk.reserve("soon", 2, devices=("U-gpu0",), ttl_seconds=60)
    desk.reserve("beyond", 1, devices=("U-gpu0",), ttl_seconds=7200)
    desk.reserve("elsewhere", 1, devices=("U-gpu1",), ttl_seconds=60)
    found = known(desk)
    assert [(each.subject, each.promised_bytes) for each in found] == [
        ("reservations/soon", -2 * GIB),
        ("reservations/late", -4 * GIB),
    ]
    assert found[0].wall == desk.clock.wall + 60
    assert found[0].what == "its lease ends"


def test_a_lease_that_was_renewed_is_taken_to_be_renewed_again() -> None:
    desk = Desk()
    desk.reserve("kept", 2, devices=("U-gpu0",), ttl_seconds=60)
    desk.pass_seconds(20)
    desk.renew("kept")
    assert known(desk) == ()


def test_what_was_promised_without_an_end_has_none() -> None:
    desk = Desk()
    desk.reserve("held", 2, devices=("U-gpu0",), ttl_seconds=None)
    assert known(desk) == ()


def test_the_device_shows_as_much_less_as_was_used() -> None:
    desk = Desk()
    desk.reserve("r", 8, devices=("U-gpu0",), ttl_seconds=60)
    desk.show(*using(("r", 2)))
    (found,) = known(desk)
    assert (found.promised_bytes, found.used_bytes, found.taken_bytes) == (
        -8 * GIB,
        -2 * GIB,
        -8 * GIB,
    )
    desk.show(*using(("r", 10)))
    (found,) = known(desk)
    assert (found.used_bytes, found.taken_bytes) == (-10 * GIB, -10 * GIB)


def test_an_idle_engine_is_unloaded() -> None:
    desk = Desk()
    desk.reserve("r", 8, devices=("U-gpu0",), ttl_seconds=None, instance="i-1")
    desk.show(*using(("r", 5)))
    at = desk.clock.wall + 300
    (found,) = known(desk, Plans(idle={"r": ("i-1", at)}))
    assert (found.subject, found.wall) == ("instances/i-1", at)
    assert (found.promised_bytes, found.used_bytes) == (-8 * GIB, -5 * GIB)
    assert known(desk, Plans(idle={"r": ("i-1", at)}), horizon=299) == ()
    assert known(desk, Plans(idle={"another": ("i-2", at)})) == ()


def test_a_notice_is_an_end_even_of_what_is_renewed() -> None:
    desk = Desk()
    desk.reserve("victim", 2, devices=("U-gpu0",), ttl_seconds=60)
    desk.pass_seconds(20)
    victim = desk.renew("victim")
    notice = Notice(by="x", deadline=Deadline.after(desk.clock.now(), 30))
    desk.ledger.books.put(type(victim)(**{**_fields(victim), "notice": notice}))
    (found,) = known(desk)
    assert found.wall == desk.clock.wall + 30
    assert found.what == "it is to make room for another"


def _fields(value: object) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__struct_fields__}  # type: ignore[attr-defined]


def test_the_next_in_the_queue_comes_in_where_it_says() -> None:
    desk = Desk()
    desk.reserve("holder", 20, devices=("U-gpu0",), ttl_seconds=600)
    waits = desk.wait("waits", 10, devices=("U-gpu0",))
    when = Deadline.after(desk.clock.now(), 600)
    ends, comes = known(desk, Plans(idle={}, next=(waits, when)))
    assert ends.subject == "reservations/holder"
    assert (comes.subject, comes.taken_bytes, comes.used_bytes) == (
        "reservations/waits",
        10 * GIB,
        0,
    )
    desk.reserve("other", 20, devices=("U-gpu1",))
    anywhere = desk.wait("anywhere", 24)
    assert [each.subject for each in known(desk, Plans(idle={}, next=(anywhere, when)))] == [
        "reservations/holder"
    ]
