"""What gpud says, read by a thread of its own and handed on; over restarts, until it is stopped.

It follows the snapshots, and with each of them asks for the lists, all at once: so it never asks
more often than its interval.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from gpuctl.client import PAGE_SIZE, Client, Stream
from gpuctl.commands.status import LIVE_RESERVATIONS
from gpuctl.failures import Failure
from gpuctl.glance.words import is_stopped
from gpuctl.messages import duration, seconds_of
from gpuctl.top.shown.past import SEEDS, SPAN_SECONDS
from gpuctl.top.shown.told import Focus, Told
from gpud.v1.alerts_pb2 import Alert, ListAlertsRequest
from gpud.v1.devices_pb2 import GetDeviceRequest
from gpud.v1.history_pb2 import QueryHistoryRequest, Series
from gpud.v1.instances_pb2 import Instance, ListInstancesRequest
from gpud.v1.node_pb2 import GetNodeRequest, Node
from gpud.v1.reservations_pb2 import ListReservationsRequest, Reservation
from gpud.v1.telemetry_pb2 import Snapshot, WatchSnapshotsRequest, WatchSnapshotsResponse

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_JOIN_SECONDS = 2.0
# A list is one page of a round; a daemon that says nothing for so long is away.
_ROUND_SECONDS = 5.0
_FOCUS_FIELDS = {
    "devices": ("memory_used_bytes", "utilization_percent"),
    "instances": ("generated_tokens_per_second", "requests_running"),
}
_FOCUS_STEP_SECONDS = 5.0
_FOCUS_WINDOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """All that gpud says, anew."""

    told: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What devices showed before anybody looked, in steps of so many seconds."""

    series: tuple[Series, ...]
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Gpud is away, or refuses; it is asked again."""

    failure: Failure


News = Heard | Kept | Lost


class Source:
    """`deliver` is called with each of the news, by one thread at a time.

    It must not wait, nor call the source.
    """

    def __init__(self, client: Client, interval: float, deliver: Callable[[News], object]) -> None:
        self.interval = interval
        self._client = client
        self._deliver = deliver
        self._stopped = threading.Event()
        # Of what threads share: the snapshot, the focus, the stream, how many rounds began, and
        # the newest of them that was delivered.
        self._lock = threading.Lock()
        self._begun = self._delivered = 0
        self._snapshot: Snapshot | None = None
        self._focus = ""
        self._stream: Stream[WatchSnapshotsResponse] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True, name="top")

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End, from any thread but its own."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                self._stream.cancel()
        self._thread.join(_JOIN_SECONDS)

    def look_at(self, name: str) -> None:
        """More of this device or instance from now on; "": of none."""
        with self._lock:
            self._focus = name

    def look(self) -> None:
        """The lists at once, as after a change; in the caller's thread."""
        with self._lock:
            snapshot, began = self._snapshot, self._begin()
        if snapshot is not None and not self._stopped.is_set():
            with suppress(Failure):  # whoever follows finds out
                self._hand_on(began, Heard(told=self._told(snapshot)))

    def _follow(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                kept = self._kept()
                with self._lock:
                    self._deliver(kept)
                for snapshot in self._snapshots():
                    with self._lock:
                        self._snapshot, began = snapshot, self._begin()
                    self._hand_on(began, Heard(told=self._told(snapshot)))
                    failures = 0
            except Failure as failure:
                with self._lock:
                    self._snapshot, began = None, self._begin()
                if not self._stopped.is_set():
                    self._hand_on(began, Lost(failure=failure))
            failures += 1
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 8))
            self._stopped.wait(pause)

    def _begin(self) -> int:
        """The number of a round that begins now; the lock is held."""
        self._begun += 1
        return self._begun

    def _hand_on(self, began: int, news: News) -> None:
        """Of two rounds at once the slower must not bring back what was before."""
        with self._lock:
            if began > self._delivered:
                self._delivered = began
                self._deliver(news)

    def _snapshots(self) -> Iterator[Snapshot]:
        request = WatchSnapshotsRequest(interval=duration(self.interval))
        stream = self._client.follow(self._client.telemetry.WatchSnapshots, request)
        with self._lock:
            self._stream = stream
            if self._stopped.is_set():
                return
        try:
            for answer in stream:
                yield answer.snapshot
        finally:
            stream.cancel()

    def _kept(self) -> Kept:
        """What gpud kept; nothing where it keeps none. Raises Failure where nobody answers."""
        request = QueryHistoryRequest(
            fields=SEEDS, window=duration(SPAN_SECONDS), step=duration(5.0)
        )
        try:
            answer = self._client.call(
                self._client.telemetry.QueryHistory, request, within_seconds=_ROUND_SECONDS
            )
        except Failure as failure:
            if not failure.reason:
                raise
            return Kept(series=(), step=0.0)
        return Kept(series=tuple(answer.series), step=seconds_of(answer.step))

    def _told(self, snapshot: Snapshot) -> Told:
        """The lists beside a snapshot. Raises Failure where nobody answers."""
        with self._lock:
            focus = self._focus
        asked = _Round(self._client)
        node = asked.begin("the node", self._client.node.GetNode, GetNodeRequest())
        instances = asked.begin(
            "instances",
            self._client.instances.ListInstances,
            ListInstancesRequest(page_size=PAGE_SIZE),
        )
        reservations = asked.begin(
            "reservations",
            self._client.reservations.ListReservations,
            ListReservationsRequest(page_size=PAGE_SIZE, states=LIVE_RESERVATIONS),
        )
        alerts = asked.begin(
            "alerts", self._client.telemetry.ListAlerts, ListAlertsRequest(page_size=PAGE_SIZE)
        )
        looked = self._looked_at(asked, focus) if focus else lambda: None
        said, found = node(), instances()
        running: list[Instance] = list(found.instances) if found else []
        held: list[Reservation] = list(answer.reservations) if (answer := reservations()) else []
        firing: list[Alert] = list(listed.alerts) if (listed := alerts()) else []
        return Told(
            node=said.node if said else Node(),
            snapshot=snapshot,
            instances=tuple(each for each in running if not is_stopped(each)),
            reservations=tuple(held),
            alerts=tuple(firing),
            focus=looked(),
            problems=tuple(asked.problems),
        )

    def _looked_at(self, asked: _Round, name: str) -> Callable[[], Focus]:
        kind = name.partition("/")[0]
        series = asked.begin(
            "its history",
            self._client.telemetry.QueryHistory,
            QueryHistoryRequest(
                subjects=[name],
                fields=_FOCUS_FIELDS.get(kind, ()),
                window=duration(_FOCUS_WINDOW_SECONDS),
                step=duration(_FOCUS_STEP_SECONDS),
            ),
        )
        device = (
            asked.begin("it", self._client.devices.GetDevice, GetDeviceRequest(name=name))
            if kind == "devices"
            else None
        )

        def focus() -> Focus:
            past, shown = series(), device() if device else None
            return Focus(
                name=name,
                device=shown.device if shown else None,
                series=tuple(past.series) if past else (),
            )

        return focus


class _Round:
    """Calls that are under way at once. What one of them is refused is a problem of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.problems: list[str] = []

    def begin(self, what: str, method: Any, request: Any) -> Callable[[], Any]:
        """Its answer, or None where it was refused. Raises Failure where nobody answers."""
        answer = self._client.begin(method, request, within_seconds=_ROUND_SECONDS)

        def told() -> Any:
            try:
                return answer()
            except Failure as failure:
                if failure.code in {
                    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
                } and not failure.reason:  # fmt: skip
                    raise
                self.problems.append(f"{what}: {failure.message}")
                return None

        return told
