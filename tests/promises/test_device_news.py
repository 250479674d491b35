"""What happens to devices reaches the journal, also what happened while that could not be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from gpud.devices.snapshot import Health, Sample, Trouble
from gpud.ledger.books import DeviceBook
from gpud.ledger.change import Change
from gpud.promises.device_news import DeviceNews
from gpud.promises.promises import Promises
from tests.fakes.cards import sample, snapshot

EMPTY = DeviceBook(granted_bytes=0, holders={"A": 1}, leaked_bytes=0)


class Desk:
    """Takes what is posted, and who is woken, in the place of the promises."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.woken: list[tuple[str, ...]] = []
        self.is_writable = True
        fake: Any = SimpleNamespace(
            durable=SimpleNamespace(device=lambda _: EMPTY, devices=dict),
            watchers=SimpleNamespace(wake=self.woken.append),
            post=self.post,
        )
        self.news = DeviceNews(cast("Promises", fake), lambda: self.is_writable)

    def post(self, change: Change) -> None:
        self.told += [event.type for event in change.events]

    def see(self, card: Sample) -> None:
        self.news.see(snapshot(card))


HERE = sample(0)
GONE = replace(HERE, health=Health.LOST, health_reason="gone")


def test_each_change_is_told_once_and_wakes_who_holds_a_promise() -> None:
    desk = Desk()
    for card in (HERE, GONE, GONE, HERE, HERE):
        desk.see(card)
    assert desk.told == ["device.lost", "device.recovered"]
    assert desk.woken == [("A",), ("A",)]


def test_a_driver_that_fails_is_told_once() -> None:
    desk = Desk()
    failing = replace(snapshot(HERE), troubles=(Trouble(driver="nvml", reason="not loaded"),))
    for seen in (failing, failing, snapshot(HERE)):
        desk.news.see(seen)
    assert desk.told == ["driver.failed", "driver.recovered"]


def test_what_a_full_disk_kept_from_the_journal_is_told_once_there_is_room() -> None:
    desk = Desk()
    desk.see(HERE)
    desk.is_writable = False
    for _ in range(3):
        desk.see(GONE)
    assert desk.told == []
    assert desk.woken == [("A",)]
    desk.is_writable = True
    desk.see(GONE)
    desk.see(GONE)
    assert desk.told == ["device.lost"]


def test_what_passed_while_nothing_could_be_written_is_no_news_afterwards() -> None:
    desk = Desk()
    desk.see(HERE)
    desk.is_writable = False
    desk.see(GONE)
    desk.see(HERE)
    desk.is_writable = True
    desk.see(HERE)
    assert desk.told == []
