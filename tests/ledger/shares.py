"""The shares that the configuration holds, as the daemon has the ledger hold them."""

from __future__ import annotations

from typing import Any

from gpud.devices.snapshot import Sample
from gpud.ledger.standing import Standing, requests_of
from tests.fakes.cards import GIB, process, sample, snapshot
from tests.ledger.desk import Desk

VOICE = Standing(name="voice", owner="voice@home", devices=("gpu0",), bytes=8 * GIB)


def stand(desk: Desk, *wanted: Standing) -> dict[str, list[str]]:
    """As the daemon does at each snapshot; what is missing."""
    shown = snapshot(*desk.cards)
    requests, missing = requests_of(wanted, shown)
    now, ledger = desk.clock.now(), desk.ledger
    held = [each for each in ledger.books.reservations.values() if each.request.standing]
    for each in held:
        if each.id not in requests and each.id not in missing:
            desk.keep(ledger.unstand(each.id, now))
    for id_, request in requests.items():
        desk.keep(ledger.stand(id_, request, now))
    desk.serve()
    return missing


def inside(desk: Desk, id_: str, gib: float, **asked: Any) -> None:
    asked = {"within": "voice", "instance": f"i-{id_}", "ttl_seconds": None, **asked}
    desk.reserve(id_, gib, **asked)


def using(*processes: tuple[str | None, float]) -> Sample:
    listed = tuple(
        process(pid, int(gib * GIB), claim) for pid, (claim, gib) in enumerate(processes, start=1)
    )
    return sample(0, used=sum(each.used_bytes or 0 for each in listed), processes=listed)
