"""`gpuctl status`, the command that is typed most: without click, so that it answers sooner."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gpuctl.client import PAGE_SIZE
from gpuctl.messages import known, seconds_of, to_plain, word
from gpuctl.render import TERMINAL_WIDTH
from gpuctl.tables import Column, clean, paint, toned
from gpuctl.units import UNKNOWN, compact_size, size_text, span_text, used_of
from gpud.v1.devices_pb2 import Device, DeviceHealth, ListDevicesRequest, Thermal
from gpud.v1.instances_pb2 import (
    HealthVerdict,
    Instance,
    InstanceState,
    ListInstancesRequest,
)
from gpud.v1.node_pb2 import Engine, GetNodeRequest, Node, TlsStatus
from gpud.v1.reservations_pb2 import (
    ListReservationsRequest,
    Reservation,
    ReservationState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuctl.session import Session

_DAY_SECONDS = 86400
# A certificate that ends so soon is told with a warning.
_WARN_DAYS = 30
# What ends, and what it means once it has. Of equals the first is told: a certificate is good no
# longer than its CA, and a new one would not be either.
_TLS_ENDS = (
    ("client_ca_expire_time", "the client CA", "none of its clients connects"),
    ("certificate_expire_time", "certificate", "no client connects"),
)

LIVE_RESERVATIONS = (
    ReservationState.RESERVATION_STATE_QUEUED,
    ReservationState.RESERVATION_STATE_GRANTED,
    ReservationState.RESERVATION_STATE_RELEASING,
)


def is_healthy(device: Device) -> bool:
    """Whether it answers; the sample of one that does not is an old one."""
    return device.health == DeviceHealth.DEVICE_HEALTH_HEALTHY


def _reading_now(device: Device, field: str) -> Any:
    return known(device.sample, field) if is_healthy(device) else None


def reading(device: Device, field: str, unit: str = "") -> str:
    """A whole number with its unit, as the device shows it now; `-` while it is unknown."""
    value = _reading_now(device, field)
    return "-" if value is None else f"{value:.0f}{unit}"


def _used(device: Device) -> str:
    """Used memory of all, as `2.5/6G`."""
    return used_of(_reading_now(device, "memory_used_bytes"), known(device, "memory_total_bytes"))


def _grantable(device: Device) -> str:
    return compact_size(known(device, "grantable_bytes") if is_healthy(device) else None)


def _health(device: Device) -> str:
    """Of a healthy device that takes nothing new, that."""
    if not is_healthy(device):
        return word(device, "health")
    hot = device.HasField("thermal") and device.thermal == Thermal.THERMAL_CRITICAL
    return "CORDONED" if device.cordoned else "HOT" if hot else word(device, "health")


def device_why(device: Device) -> str:
    """Why it takes nothing new; empty where nothing speaks against it."""
    if not is_healthy(device):
        return device.health_reason
    if not device.cordoned:
        return ""
    return f"cordoned: {device.cordon_reason}" if device.cordon_reason else "cordoned"


def short_model(device: Device) -> str:
    """The card's name without the maker's words, which say nothing in a column."""
    return device.model_name.removeprefix("NVIDIA ").removeprefix("GeForce ")


DEVICE_COLUMNS: tuple[Column[Device], ...] = (
    Column(header="DEVICE", cell=lambda d: d.alias),
    Column(header="MODEL", cell=short_model, shrinks=True),
    Column(header="MEMORY", cell=_used, right=True),
    Column(header="GRANTED", cell=lambda d: compact_size(d.granted_bytes), right=True),
    Column(header="GRANTABLE", cell=_grantable, right=True),
    Column(header="FOREIGN", cell=lambda d: compact_size(known(d, "foreign_bytes")), right=True),
    Column(header="UTIL", cell=lambda d: reading(d, "utilization_percent", "%"), right=True),
    Column(header="TEMP", cell=lambda d: reading(d, "temperature_celsius", "°C"), right=True),
    Column(header="HEALTH", cell=_health),
)


_ENDED = {InstanceState.INSTANCE_STATE_STOPPED, InstanceState.INSTANCE_STATE_FAILED}


_UNWELL = {HealthVerdict.HEALTH_VERDICT_DEGRADED, HealthVerdict.HEALTH_VERDICT_STUCK}


def _instance_why(instance: Instance) -> str:
    """Why it failed, waits to be started again, or does not serve as it should."""
    is_down = instance.state == InstanceState.INSTANCE_STATE_BACKOFF
    unwell = is_down or instance.health.verdict in _UNWELL
    return instance.failure.message or "; ".join(
        filter(None, (overuse_text(instance), instance.health.reason if unwell else ""))
    )


def overuse_text(instance: Instance) -> str:
    """That it holds more than it was promised; empty where it does not."""
    over = known(instance, "overuse_bytes")
    return f"it holds {size_text(over)} more than it was promised" if over else ""


def _refuses_asleep(instance: Instance) -> bool:
    """Whether it sleeps until somebody wakes it; a llama-server wakes when it is asked."""
    by_itself = instance.sleeping and instance.engine == Engine.ENGINE_LLAMA_CPP
    return not by_itself and (instance.sleeping or instance.HasField("sleep"))


def _instance_memory(instance: Instance) -> str:
    """Used of promised, as `700/752M`; `-/752M` before it is measured, `-` where none is held."""
    if instance.state in _ENDED or not instance.reservation:
        return UNKNOWN
    return used_of(known(instance, "measured_bytes"), instance.footprint.total_bytes)


def _instance_state(instance: Instance) -> str:
    """With its place in the queue (QUEUED 2), and how it does not serve, or use, as it should."""
    marks = [word(instance, "state")]
    position = known(instance, "queue_position")
    if position is not None:
        marks.append(str(position))
    if instance.health.verdict in _UNWELL:
        marks.append(word(instance.health, "verdict"))
    elif _refuses_asleep(instance):
        marks.append("ASLEEP")
    if known(instance, "overuse_bytes"):
        marks.append("OVERUSE")
    return " ".join(marks)


INSTANCE_COLUMNS: tuple[Column[Instance], ...] = (
    Column(header="INSTANCE", cell=lambda i: i.name.removeprefix("instances/")),
    Column(header="MODEL", cell=lambda i: i.model.removeprefix("models/"), shrinks=True),
    Column(header="STATE", cell=_instance_state),
    Column(header="MEMORY", cell=_instance_memory, right=True),
    Column(header="ENDPOINT", cell=lambda i: i.endpoint),
)


def print_status(session: Session) -> None:
    """The node, its devices, what runs on them and how much is promised, at a glance."""
    client = session.client
    # Four calls, one wait.
    node = client.begin(client.node.GetNode, GetNodeRequest())
    devices = client.begin(client.devices.ListDevices, ListDevicesRequest(page_size=PAGE_SIZE))
    instances = client.begin(
        client.instances.ListInstances, ListInstancesRequest(page_size=PAGE_SIZE)
    )
    reservations = client.begin(
        client.reservations.ListReservations,
        ListReservationsRequest(page_size=PAGE_SIZE, states=LIVE_RESERVATIONS),
    )
    status = Status(
        node=node().node,
        devices=list(devices().devices),
        instances=[i for i in instances().instances if not is_stopped(i)],
        reservations=list(reservations().reservations),
    )
    if session.output.is_table:
        session.output.lines(status.lines(session))
    else:
        session.output.document(status.plain())


def is_over(instance: Instance) -> bool:
    """Ended, one way or another."""
    return instance.state in _ENDED


def is_stopped(instance: Instance) -> bool:
    """Ended as it should; a failed one is still worth seeing."""
    return instance.state == InstanceState.INSTANCE_STATE_STOPPED


class Status:
    """The answers of the four calls."""

    def __init__(
        self,
        *,
        node: Node,
        devices: list[Device],
        instances: list[Instance],
        reservations: list[Reservation],
    ) -> None:
        self._node = node
        self._devices = devices
        self._instances = instances
        self._reservations = reservations

    def plain(self) -> dict[str, object]:
        """For JSON and YAML: the messages as they came."""
        return {
            "node": to_plain(self._node),
            "devices": [to_plain(device) for device in self._devices],
            "instances": [to_plain(instance) for instance in self._instances],
            "reservations": [to_plain(reservation) for reservation in self._reservations],
        }

    def lines(self, session: Session) -> list[str]:
        """For people; fits the terminal, and 80 columns are enough."""
        output = session.output
        now = session.now()
        lines = [self._node_line(now, color=output.color)]
        if self._node.HasField("tls"):
            told = tls_lines(self._node.tls, now)
            lines += [toned(line, tone) if output.color and tone else line for line, tone in told]
        lines += [toned(line, "yellow") if output.color else line for line in self._orphans()]
        lines.append("")
        if self._devices:
            table = output.table(DEVICE_COLUMNS, width=output.room)
            lines += table.lines(self._devices)
        else:
            lines.append("no devices")
        lines += self._device_problems(output.room)
        if self._instances:
            table_of_instances = output.table(INSTANCE_COLUMNS, width=output.room)
            lines += ["", *table_of_instances.lines(self._instances)]
            lines += self._instance_problems(output.room)
        return [*lines, "", self._reservation_line()]

    def _node_line(self, now: float, *, color: bool) -> str:
        node, state = self._node, word(self._node, "state")
        up = span_text(max(0.0, now - seconds_of(node.start_time)))
        shown = paint(state) if color else state
        why = f" ({clean(node.state_reason)})" if node.state_reason else ""
        return f"{clean(node.hostname)}  gpud {clean(node.version)}  {shown}{why}  up {up}"

    def _orphans(self) -> list[str]:
        """That processes were left behind, which show as foreign bytes at most."""
        count = known(self._node, "orphan_count") or 0
        plural = "" if count == 1 else "s"
        return [f"{count} orphan{plural}: see `gpuctl orphans`"] if count else []

    def _device_problems(self, width: int | None) -> list[str]:
        return [
            _cut(f"{device.alias}: {why}", width)
            for device in self._devices
            if (why := device_why(device))
        ]

    def _instance_problems(self, width: int | None) -> list[str]:
        return [
            _cut(f"{instance.name.removeprefix('instances/')}: {why}", width)
            for instance in self._instances
            if (why := _instance_why(instance))
        ]

    def _reservation_line(self) -> str:
        if not self._reservations:
            return "no reservations"
        states = Counter(word(reservation, "state").lower() for reservation in self._reservations)
        more = "+" if len(self._reservations) >= PAGE_SIZE else ""
        plural = "" if len(self._reservations) == 1 else "s"
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{len(self._reservations)}{more} reservation{plural}: {counted}"


def tls_lines(tls: TlsStatus, now: float) -> Iterator[tuple[str, str]]:
    """What of TLS ends first, and why the newest files are not in use.

    Each with its tone, empty where nothing has to be done.
    """
    ends = [
        (seconds_of(getattr(tls, field)), whose, consequence)
        for field, whose, consequence in _TLS_ENDS
        if tls.HasField(field)
    ]
    if ends:
        end, whose, consequence = min(ends, key=lambda each: each[0])
        days = int((end - now) // _DAY_SECONDS)
        count = f"{abs(days)} day{'' if abs(days) == 1 else 's'}"
        if days < 0:
            yield f"tls: {whose} expired {count} ago: {consequence}", "red"
        elif days < _WARN_DAYS:
            yield f"tls: {whose} expires in {count}: replace it", "yellow"
        else:
            yield f"tls: {whose} expires in {count}", ""
    if tls.problem:
        import textwrap

        text = clean(f"tls: the newest files are refused: {tls.problem}")
        for line in textwrap.wrap(text, TERMINAL_WIDTH, subsequent_indent="     "):
            yield line, "yellow"


def _cut(line: str, width: int | None) -> str:
    """A line that fits; `gpuctl show` has the whole of it."""
    text = clean(line)
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"
