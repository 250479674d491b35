"""What is served where over HTTP.

A page is made at most once for each snapshot or decision, and once a second when neither comes:
who asks more often is given the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from gpud.clock import Clock
from gpud.http.collecting import Collector
from gpud.http.request import Answer, Request, text
from gpud.telemetry.counting import COMMIT_BOUNDS_SECONDS
from gpud.telemetry.page.dcgm import DcgmPage
from gpud.telemetry.page.native import NativePage
from gpud.telemetry.page.services import ServicePage

METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON: Final = "application/json"
SERVICE_PREFIX: Final = "/metrics/"
# Of a page whose numbers change without a snapshot: calls, the process.
OLDEST_SECONDS: Final = 1.0


class Pages:
    """Answers requests; belongs to the loop and never waits."""

    def __init__(
        self,
        collector: Collector,
        clock: Clock,
        state: Callable[[], tuple[str, str]],
        dcgm: DcgmPage,
    ) -> None:
        """`state` gives the node's state, and why it is not READY."""
        self._collector = collector
        self._clock = clock
        self._state = state
        self._dcgm = dcgm
        self._native = NativePage(COMMIT_BOUNDS_SECONDS)
        self._services = ServicePage()
        self._kept: dict[str, tuple[tuple[int, int], float, Answer]] = {}
        self._places: dict[str, Callable[[], Answer]] = {
            "/": self._index,
            "/healthz": lambda: text("ok"),
            "/readyz": self._ready,
            "/metrics": lambda: self._once("/metrics", self._metrics),
            "/metrics/dcgm": lambda: self._once("/metrics/dcgm", self._dcgm_metrics),
            "/sd/prometheus": self._targets,
        }

    def __call__(self, request: Request) -> Answer:
        """The answer to a request."""
        place = self._places.get(request.path)
        if place is not None:
            return place()
        if request.path.startswith(SERVICE_PREFIX):
            return self._service(request.path.removeprefix(SERVICE_PREFIX))
        return text(f"there are {', '.join(self._places)}", HTTPStatus.NOT_FOUND)

    def _once(self, path: str, make: Callable[[], str]) -> Answer:
        version, now = self._collector.version, self._clock.now().boottime
        kept = self._kept.get(path)
        if kept is not None and kept[0] == version and now - kept[1] < OLDEST_SECONDS:
            return kept[2]
        answer = Answer(body=make().encode(), kind=METRICS)
        self._kept[path] = (version, now, answer)
        return answer

    def _index(self) -> Answer:
        names = [f"{SERVICE_PREFIX}{name}" for name in self._collector.services()]
        return text("\n".join([*self._places, *names]))

    def _ready(self) -> Answer:
        name, reason = self._state()
        if name == "READY":
            return text("ready")
        return text(f"{name.lower()}: {reason}", HTTPStatus.SERVICE_UNAVAILABLE)

    def _metrics(self) -> str:
        return self._native.render(self._collector.sight())

    def _dcgm_metrics(self) -> str:
        snapshot, now = self._collector.snapshot, self._clock.now().boottime
        return self._dcgm.render(snapshot.samples, now) if snapshot is not None else ""

    def _service(self, name: str) -> Answer:
        service = self._collector.service(name)
        if service is None:
            known = ", ".join(self._collector.services()) or "none yet"
            told = (
                f"there is no service {json.dumps(name)[:200]}; there are: {known}. A reservation "
                "or a model is for one when its label says so (engine_metrics.service_label)"
            )
            return text(told, HTTPStatus.NOT_FOUND)
        return Answer(body=self._services.render(service).encode(), kind=METRICS)

    def _targets(self) -> Answer:
        return Answer(body=self._collector.targets().encode(), kind=JSON)
