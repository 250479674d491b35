"""`gpuctl status`, the command that is typed most: without click, so that it answers sooner."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from gpuctl.client import PAGE_SIZE
from gpuctl.commands.host import host_lines
from gpuctl.failures import Failure
from gpuctl.glance.screen import shortened, spaced
from gpuctl.glance.split import bar_text, device_bar
from gpuctl.glance.trouble import gravity, grouped, troubles, untold
from gpuctl.glance.words import (
    bands_text,
    grantable_text,
    health_word,
    instance_memory,
    instance_state,
    is_stopped,
    reading,
    short_model,
    tokens_text,
    used_text,
)
from gpuctl.messages import known, seconds_of, to_plain, word
from gpuctl.render import knows_unicode, terminal_height
from gpuctl.tables import Column, Table, clean, paint, toned
from gpuctl.units import compact_size, span_text
from gpud.v1.alerts_pb2 import Alert, ListAlertsRequest
from gpud.v1.devices_pb2 import Device, ListDevicesRequest
from gpud.v1.instances_pb2 import Instance, ListInstancesRequest
from gpud.v1.node_pb2 import GetNodeRequest, Node
from gpud.v1.reservations_pb2 import (
    ListReservationsRequest,
    Reservation,
    ReservationState,
)
from gpud.v1.telemetry_pb2 import GetSnapshotRequest, HostReadings

if TYPE_CHECKING:
    from gpuctl.session import Session

LIVE_RESERVATIONS = (
    ReservationState.RESERVATION_STATE_QUEUED,
    ReservationState.RESERVATION_STATE_GRANTED,
    ReservationState.RESERVATION_STATE_RELEASING,
)
# Of a screen that does not tell. Before it is full blank lines go, then the disks, which are
# alerts when they fill up; of many troubles the worst are told, so many lines at least.
_SCREEN_LINES = 24
_LEAST_TROUBLES = 2
_LEAST_INSTANCES = 3  # with the headers
_BAR_WIDTHS = (6, 12)

DEVICE_COLUMNS: tuple[Column[Device], ...] = (
    Column(header="DEVICE", cell=lambda d: d.alias),
    Column(header="MODEL", cell=short_model, shrinks=True),
    Column(header="MEMORY", cell=used_text, right=True),
    Column(header="GRANTED", cell=lambda d: compact_size(d.granted_bytes), right=True),
    Column(header="GRANTABLE", cell=grantable_text, right=True),
    Column(header="FOREIGN", cell=lambda d: compact_size(known(d, "foreign_bytes")), right=True),
    Column(header="UTIL", cell=lambda d: reading(d, "utilization_percent", "%"), right=True),
    Column(header="TEMP", cell=lambda d: reading(d, "temperature_celsius", "°C"), right=True),
    Column(header="HEALTH", cell=health_word),
)

INSTANCE_COLUMNS: tuple[Column[Instance], ...] = (
    Column(header="INSTANCE", cell=lambda i: i.name.removeprefix("instances/")),
    Column(header="MODEL", cell=lambda i: i.model.removeprefix("models/"), shrinks=True),
    Column(header="STATE", cell=instance_state),
    Column(header="MEMORY", cell=instance_memory, right=True),
    Column(header="ENDPOINT", cell=lambda i: i.endpoint),
)
_TOKENS: Column[Instance] = Column(header="TOK/S", cell=tokens_text, right=True)


def bar_columns(bar_width: int, *, plain: bool) -> tuple[Column[Device], ...]:
    """Of a device with its bytes as a bar, which says what is foreign. `plain`: in ASCII."""

    def bar(device: Device) -> str:
        return bar_text(device_bar(device, bar_width), plain=plain)

    rest = tuple(column for column in DEVICE_COLUMNS[2:] if column.header != "FOREIGN")
    return (*DEVICE_COLUMNS[:2], Column(header="USE", cell=bar), *rest)


def print_status(session: Session) -> int:
    """The node, what is wrong, its devices, what is promised and what runs; how grave it is."""
    client = session.client
    # Six calls, one wait.
    node = client.begin(client.node.GetNode, GetNodeRequest())
    devices = client.begin(client.devices.ListDevices, ListDevicesRequest(page_size=PAGE_SIZE))
    instances = client.begin(
        client.instances.ListInstances, ListInstancesRequest(page_size=PAGE_SIZE)
    )
    reservations = client.begin(
        client.reservations.ListReservations,
        ListReservationsRequest(page_size=PAGE_SIZE, states=LIVE_RESERVATIONS),
    )
    host = client.begin(client.telemetry.GetSnapshot, GetSnapshotRequest(devices=["host"]))
    alerts = client.begin(client.telemetry.ListAlerts, ListAlertsRequest(page_size=PAGE_SIZE))
    status = Status(
        node=node().node,
        devices=list(devices().devices),
        instances=[i for i in instances().instances if not is_stopped(i)],
        reservations=list(reservations().reservations),
        alerts=list(alerts().alerts),
    )
    with suppress(Failure):  # devices.host is off, or nothing was sampled yet
        status.host = host().snapshot.host
    if session.output.is_table:
        session.output.lines(status.lines(session))
    else:
        session.output.document(status.plain())
    return status.gravity


class Status:
    """The answers of the calls."""

    def __init__(
        self,
        *,
        node: Node,
        devices: list[Device],
        instances: list[Instance],
        reservations: list[Reservation],
        alerts: list[Alert],
    ) -> None:
        self._node = node
        self._devices = devices
        self._instances = instances
        self._reservations = reservations
        self._alerts = alerts
        self.host: HostReadings | None = None

    @property
    def gravity(self) -> int:
        """0 for nothing, 1 for what somebody has to look at, 2 for what is critical."""
        return gravity(self._node, self._alerts)

    def plain(self) -> dict[str, object]:
        """For JSON and YAML: the messages as they came."""
        return {
            "node": to_plain(self._node),
            "devices": [to_plain(device) for device in self._devices],
            "instances": [to_plain(instance) for instance in self._instances],
            "reservations": [to_plain(reservation) for reservation in self._reservations],
            "alerts": [to_plain(alert) for alert in self._alerts],
        } | ({"host": to_plain(self.host)} if self.host is not None else {})

    def lines(self, session: Session) -> list[str]:
        """For people; fits the terminal: 80 columns and 24 lines do for eight cards."""
        width = session.output.room
        head, wrong = self._head(session), self._wrong(session)
        devices, host, instances = self._shown(session), self._host(width), self._ran(session)
        promised = _cut(self._reservation_line(session.now()), width)
        rows = _rows() if width is not None else None
        if rows is not None:
            left = rows - len([*head, *devices, promised])
            if left < len([*wrong, *host, *instances]):
                host = host[:1]
            left -= len(host)
            where, room = "`gpuctl alerts`, `devices`", left - len(instances)
            wrong = shortened(self._wrong(session, room), room, _LEAST_TROUBLES, where)
            ran = "`gpuctl instances`"
            instances = shortened(instances, left - len(wrong), _LEAST_INSTANCES, ran)
        parts = [[*head, *wrong], [*devices, *host], [promised], instances]
        return spaced([part for part in parts if part], rows)

    def _head(self, session: Session) -> list[str]:
        """The node, and what there is to say of itself."""
        now, colored = session.now(), session.output.color
        told = self._notices(now, session.output.room)
        return [self._node_line(now, color=colored), *_painted(told, colored=colored)]

    def _wrong(self, session: Session, room: int | None = None) -> list[str]:
        """What is wrong, which is what is looked for first; by rules where lines are few."""
        width = session.output.room
        found = troubles(self._devices, self._instances, self._alerts)
        if room is not None and len(found) > room:
            found = grouped(found)
        told = [(_cut(each.line, width), each.tone) for each in found]
        return _painted(told, colored=session.output.color)

    def _notices(self, now: float, width: int | None) -> list[tuple[str, str]]:
        """Of TLS and of the node itself, each with its tone."""
        warned = [f"warning: {each}" for each in untold(self._node, self._alerts)]
        if orphans := known(self._node, "orphan_count"):  # they show as foreign bytes at most
            warned.append(f"{orphans} orphan{'s'[: orphans > 1]}: see `gpuctl orphans`")
        if not self._node.HasField("tls") and not warned:
            return []
        from gpuctl.glance.tls import tls_lines, wrapped

        told = list(tls_lines(self._node.tls, now, width))
        return told + [(line, "yellow") for each in warned for line in wrapped(each, width)]

    def _node_line(self, now: float, *, color: bool) -> str:
        node, state = self._node, word(self._node, "state")
        up = span_text(max(0.0, now - seconds_of(node.start_time)))
        shown = paint(state) if color else state
        why = f" ({clean(node.state_reason)})" if node.state_reason else ""
        return f"{clean(node.hostname)}  gpud {clean(node.version)}  {shown}{why}  up {up}"

    def _host(self, width: int | None) -> list[str]:
        """The host and its disks, in one line where that has room for both."""
        lines = host_lines(self.host) if self.host is not None else []
        both = "  ".join(lines)
        fits = lines and (width is None or len(both) <= width)
        return [both] if fits else [_cut(line, width) for line in lines]

    def _shown(self, session: Session) -> list[str]:
        """The devices, and who is full or hot."""
        devices = self._device_table(session) if self._devices else ["no devices"]
        bands = bands_text(self._devices)
        return [*devices, *([_cut(bands, session.output.room)] if bands else [])]

    def _device_table(self, session: Session) -> list[str]:
        """The bar takes what room the rest leaves."""
        plain = not knows_unicode(sys.stdout)
        least, most = _BAR_WIDTHS
        taken = max(map(len, Table(bar_columns(least, plain=plain)).lines(self._devices)))
        width = session.output.room
        bar = most if width is None else min(most, max(least, least + width - taken))
        columns = bar_columns(bar, plain=plain)
        return session.output.table(columns, width=width).lines(self._devices)

    def _ran(self, session: Session) -> list[str]:
        if not self._instances:
            return []
        columns = (*INSTANCE_COLUMNS[:4], _TOKENS, *INSTANCE_COLUMNS[4:])
        return session.output.table(columns, width=session.output.room).lines(self._instances)

    def _reservation_line(self, now: float) -> str:
        """How much is promised, and what the next in the queue waits for."""
        if not self._reservations:
            return "no reservations"
        states = Counter(word(reservation, "state").lower() for reservation in self._reservations)
        more = "+" if len(self._reservations) >= PAGE_SIZE else ""
        plural = "" if len(self._reservations) == 1 else "s"
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        line = f"{len(self._reservations)}{more} reservation{plural}: {counted}"
        waiting = [each for each in self._reservations if each.HasField("queue_position")]
        if not waiting:
            return line
        first = min(waiting, key=lambda each: each.queue_position)
        name = first.name.removeprefix("reservations/")
        since = span_text(max(0.0, now - seconds_of(first.create_time)))
        return f"{line}; next {name}, for {since}: {first.wait_reason or '-'}"


def _rows() -> int:
    """What the terminal holds above a prompt."""
    return (terminal_height(sys.stdout) or _SCREEN_LINES) - 1


def _painted(lines: list[tuple[str, str]], *, colored: bool) -> list[str]:
    return [toned(line, tone) if colored and tone else line for line, tone in lines]


def _cut(line: str, width: int | None) -> str:
    """A line that fits; `gpuctl show` has the whole of it."""
    text = clean(line)
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"
