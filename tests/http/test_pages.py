"""Which page is served where, and when one is made anew."""

from __future__ import annotations

import random
from http import HTTPStatus
from typing import Any

import pytest

from gpud.http.pages import OLDEST_SECONDS, Pages
from gpud.http.request import Answer, Request
from gpud.telemetry.page.dcgm import DcgmPage
from gpud.telemetry.page.native import Sight
from tests.fakes.clock import FakeClock
from tests.telemetry.page.moment import info, sight, snapshot


class Collected:
    """What a Collector gives, and how often the native page was asked for."""

    def __init__(self) -> None:
        self.version = (1, 1)
        self.snapshot = snapshot([info(0)], 1, random.Random(1))
        self.sights = 0

    def sight(self) -> Sight:
        self.sights += 1
        return sight(self.snapshot)

    def service(self, name: str) -> None:
        """There is none."""

    def services(self) -> tuple[str, ...]:
        return ("chat", "voice")

    def targets(self) -> str:
        return "[]"


class Site:
    def __init__(self) -> None:
        self.collected, self.clock, self.state = Collected(), FakeClock(), ("READY", "")
        collector: Any = self.collected
        self.pages = Pages(
            collector, self.clock, lambda: self.state, DcgmPage("node1", "Hostname")
        )

    def get(self, path: str) -> Answer:
        return self.pages(Request(path=path))


@pytest.fixture
def site() -> Site:
    return Site()


def test_every_page_has_its_place_and_its_kind(site: Site) -> None:
    assert site.get("/healthz").body == b"ok\n"
    native = site.get("/metrics")
    assert native.kind == "text/plain; version=0.0.4; charset=utf-8"
    assert native.body.startswith(b"# HELP gpud_build_info ")
    assert site.get("/metrics/dcgm").body.startswith(b"# HELP DCGM_FI_DEV_")
    assert site.get("/sd/prometheus") == Answer(body=b"[]", kind="application/json")
    listed = site.get("/").body.decode().split()
    assert listed[-2:] == ["/metrics/chat", "/metrics/voice"]
    assert all(site.get(path).status is HTTPStatus.OK for path in listed[:-2])


def test_a_place_that_there_is_not_says_which_there_are(site: Site) -> None:
    gone = site.get("/favicon.ico")
    assert gone.status is HTTPStatus.NOT_FOUND
    assert gone.body.startswith(b"there are /, /healthz, ")
    nobody = site.get("/metrics/" + "x" * 1000)
    assert nobody.status is HTTPStatus.NOT_FOUND
    assert b"there are: chat, voice. " in nobody.body
    assert len(nobody.body) < 600


def test_ready_only_when_it_is_and_else_why(site: Site) -> None:
    assert site.get("/readyz") == Answer(body=b"ready\n")
    site.state = ("DRAINING", "by anna")
    draining = site.get("/readyz")
    assert draining.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert draining.body == b"draining: by anna\n"
    assert site.get("/healthz").status is HTTPStatus.OK


def test_before_the_first_snapshot_there_are_no_cards(site: Site) -> None:
    site.collected.snapshot = None  # type: ignore[assignment]
    assert site.get("/metrics/dcgm") == Answer(body=b"", kind=site.get("/metrics").kind)


def test_a_page_is_made_once_for_all_who_ask_before_anything_changed(site: Site) -> None:
    first = site.get("/metrics")
    assert site.get("/metrics") is first
    assert site.collected.sights == 1
    site.collected.version = (1, 2)
    site.get("/metrics")
    assert site.collected.sights == 2
    # Calls and the process change without a snapshot.
    site.clock.advance(OLDEST_SECONDS)
    site.get("/metrics")
    assert site.collected.sights == 3
