"""`gpuctl devices` and `gpuctl watch`: what is there, now and as it changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import click
from google.protobuf.timestamp_pb2 import Timestamp

from gpuctl.client import PAGE_SIZE
from gpuctl.commands.status import DEVICE_COLUMNS
from gpuctl.failures import Failure, usage
from gpuctl.following import following
from gpuctl.glance.words import answers, device_why, reading
from gpuctl.messages import duration, known, word
from gpuctl.options import COUNT, command, span
from gpuctl.render import terminal_height
from gpuctl.session import Session, request_id
from gpuctl.tables import Column, Table, clean, clock_text
from gpuctl.units import compact_size
from gpud.v1.devices_pb2 import (
    CordonDeviceRequest,
    Device,
    DeviceProcess,
    ListDevicesRequest,
    UncordonDeviceRequest,
)
from gpud.v1.telemetry_pb2 import Snapshot, WatchSnapshotsRequest


def _optional_text(device: Device, field: str) -> str:
    value = known(device, field)
    return "-" if value is None else str(value)


def _throttled(device: Device) -> str:
    """By what power, heat or the board hold its clocks down; `-` where it does not tell."""
    if not answers(device) or not device.sample.HasField("throttled"):
        return "-"
    return ",".join(device.sample.throttle_reasons) if device.sample.throttled else "no"


def _pcie(device: Device) -> str:
    """Generation and lanes of its link, as `4x16`."""
    generation, width = (
        known(device.sample, field) for field in ("pcie_generation", "pcie_width")
    )
    return "-" if generation is None or width is None else f"{generation}x{width}"


def _ecc(device: Device) -> str:
    """Errors of its memory that could be corrected, and that could not: `3/0`."""
    counts = [
        known(device.sample, field) for field in ("ecc_corrected_count", "ecc_uncorrected_count")
    ]
    return "-" if None in counts else f"{counts[0]}/{counts[1]}"


def _xids(device: Device) -> str:
    """Error numbers that gpud knows of, each with how often: `79`, `31x4`."""
    return ",".join(
        str(each.xid) if each.count == 1 else f"{each.xid}x{each.count}" for each in device.xids
    )


def _action(device: Device) -> str:
    action = word(device, "suggested_action")
    return "" if action == "NONE" else action


_POWER: Column[Device] = Column(
    header="POWER", cell=lambda d: reading(d, "power_watts", "W"), right=True
)
_COLUMNS: tuple[Column[Device], ...] = (
    *DEVICE_COLUMNS,
    Column(header="KIND", cell=lambda d: word(d, "kind"), wide=True),
    replace(_POWER, wide=True),
    Column(header="PRESSURE", cell=lambda d: word(d, "pressure"), wide=True),
    Column(header="HEAT", cell=lambda d: word(d, "thermal"), wide=True),
    Column(header="THROTTLED", cell=_throttled, wide=True),
    Column(header="PSTATE", cell=lambda d: reading(d, "performance_state"), right=True, wide=True),
    Column(header="PCIE", cell=_pcie, wide=True),
    Column(header="ECC", cell=_ecc, right=True, wide=True),
    Column(header="XIDS", cell=_xids, wide=True),
    Column(header="DO", cell=_action, wide=True),
    Column(header="RESERVE", cell=lambda d: compact_size(d.reserve_bytes), right=True, wide=True),
    Column(
        header="UNATTRIBUTED",
        cell=lambda d: compact_size(known(d, "unattributed_bytes")),
        right=True,
        wide=True,
    ),
    Column(header="LEAKED", cell=lambda d: compact_size(d.leaked_bytes), right=True, wide=True),
    Column(header="UUID", cell=lambda d: d.name.removeprefix("devices/"), wide=True),
    Column(header="PCI", cell=lambda d: _optional_text(d, "pci_bus_id"), wide=True),
    Column(header="DRIVER", cell=lambda d: _optional_text(d, "driver_version"), wide=True),
    Column(header="NUMA", cell=lambda d: _optional_text(d, "numa_node"), right=True, wide=True),
    Column(
        header="EXCLUSIVE",
        cell=lambda d: d.exclusive_reservation.removeprefix("reservations/"),
        wide=True,
    ),
    Column(header="WHY", cell=device_why, wide=True),
)


@command(fans_out=True)
def devices(session: Session) -> None:
    """List what has memory that can be promised, and how much of it is free."""
    client = session.client
    request = ListDevicesRequest(include_processes=not session.output.is_table)
    found = [d for page in client.pages(client.devices.ListDevices, request) for d in page.devices]
    session.output.many("devices", found, _COLUMNS, width=session.output.room)


@command()
@click.argument("device")
@click.option("--reason", default="", help="Shown with the device and in refusals.")
def cordon(session: Session, device: str, reason: str) -> None:
    """Grant nothing new on a device, across restarts; what it carries stays."""
    client = session.client
    request = CordonDeviceRequest(
        request_id=request_id(), name=_named(device), reason=reason, owner=session.owner()
    )
    answer = client.call(client.devices.CordonDevice, request)
    session.output.one(answer.device, _COLUMNS, width=session.output.room)


@command()
@click.argument("device")
def uncordon(session: Session, device: str) -> None:
    """Grant on a device again, or forget one that is lost for good."""
    client = session.client
    request = UncordonDeviceRequest(
        request_id=request_id(), name=_named(device), owner=session.owner()
    )
    answer = client.call(client.devices.UncordonDevice, request)
    session.output.one(answer.device, _COLUMNS, width=session.output.room)


def _named(device: str) -> str:
    """An alias or a UUID as it is, for gpud knows it. Raises Failure for something else's name."""
    if not device or ("/" in device and not device.startswith("devices/")):
        raise usage(f"{device!r} does not name a device; write gpu0, a UUID or devices/UUID")
    return device


def device_aliases(session: Session) -> dict[str, str]:
    """gpu0 for devices/{uuid}: for tables, and empty rather than a reason not to draw one."""
    client = session.client
    try:
        answer = client.call(client.devices.ListDevices, ListDevicesRequest(page_size=PAGE_SIZE))
    except Failure:
        return {}
    return {device.name: device.alias for device in answer.devices if device.alias}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A row of `watch`: one device at one moment."""

    time: Timestamp
    device: Device


# Not read from the device: these give way first.
_SUMS = {"GRANTED", "FOREIGN"}


def _of_reading(column: Column[Device]) -> Column[_Reading]:
    return Column(
        header=column.header,
        cell=lambda row: column.cell(row.device),
        right=column.right,
        drops=column.header in _SUMS,
    )


_WATCH_COLUMNS: tuple[Column[_Reading], ...] = (
    Column(header="TIME", cell=lambda r: clock_text(r.time)),
    *(_of_reading(c) for c in (DEVICE_COLUMNS[0], *DEVICE_COLUMNS[2:-1], _POWER)),
    # Cut where a word longer than those before it comes between headers.
    replace(_of_reading(DEVICE_COLUMNS[-1]), shrinks=True),
)


def _relation(process: DeviceProcess) -> str:
    """What it is to gpud; one that tells none is judged by its reservation."""
    told = word(process, "relation")
    return told if told != "-" or process.reservation else "FOREIGN"


_PROCESS_COLUMNS: tuple[Column[DeviceProcess], ...] = (
    Column(header="PID", cell=lambda p: str(p.pid), right=True),
    Column(header="USED", cell=lambda p: compact_size(known(p, "used_bytes")), right=True),
    Column(header="KIND", cell=lambda p: word(p, "kind")),
    Column(header="RELATION", cell=_relation),
    Column(header="RESERVATION", cell=lambda p: p.reservation),
    Column(header="PROCESS", cell=lambda p: p.process_name),
)


@command(named=False)
@click.option("--interval", type=span, default="0s", help="Least time between snapshots.")
@click.option("--count", type=COUNT, help="End after so many snapshots.")
@click.option("--device", "device_names", multiple=True, help="Only this device; may be repeated.")
@click.option("--processes", is_flag=True, help="With the processes on each device.")
def watch(
    session: Session,
    interval: float,
    count: int | None,
    device_names: tuple[str, ...],
    processes: bool,
) -> None:
    """Show the devices' readings as they change, until Ctrl-C or --count.

    Goes on where a connection ends, and says so on stderr, unless gpud stays away.
    `gpuctl top` shows more of it, on a whole screen.
    """
    request = WatchSnapshotsRequest(
        interval=duration(interval), devices=device_names, include_processes=processes
    )
    client, output = session.client, session.output
    table = output.table(_WATCH_COLUMNS, width=output.room)
    headers = _Headers(terminal_height(sys.stdout))
    watched = client.telemetry.WatchSnapshots
    with following(client, watched, lambda: request, _note) as answers:
        for answer in islice(answers, count):
            # Where to go on should the connection end.
            request.after_sequence = answer.snapshot.sequence
            request.epoch = answer.snapshot.epoch
            _tell_missed(answer.snapshot)
            if output.is_table:
                rows = len(answer.snapshot.devices)
                is_due = headers.is_due(rows)
                output.lines(_snapshot_lines(table, answer.snapshot, header=is_due))
            else:
                output.streamed(answer.snapshot)


def _tell_missed(snapshot: Snapshot) -> None:
    """The first after a break says what came meanwhile."""
    if snapshot.missed_count:
        _note(f"{snapshot.missed_count} snapshots were missed")


def _note(text: str) -> None:
    print(f"gpuctl: {clean(text)}", file=sys.stderr, flush=True)


class _Headers:
    """When the headers are to be seen again. `height`: of the terminal; None: where it is none."""

    def __init__(self, height: int | None) -> None:
        self._height = height
        self._below: int | None = None

    def is_due(self, rows: int) -> bool:
        """Before so many rows more: at first, and before the last headers have scrolled away."""
        begins = self._below is None
        full = self._height is not None and (self._below or 0) + rows >= self._height
        self._below = rows + 1 if begins or full else (self._below or 0) + rows
        return begins or full


def _snapshot_lines(table: Table[_Reading], snapshot: Snapshot, *, header: bool) -> Iterator[str]:
    rows = [_Reading(time=snapshot.time, device=device) for device in snapshot.devices]
    drawn = table.lines(rows, header=header)
    if header:
        yield drawn.pop(0)
    for line, device in zip(drawn, snapshot.devices, strict=True):
        yield line
        if device.sample.processes:
            listed = Table(_PROCESS_COLUMNS).lines(device.sample.processes)
            yield from (f"    {process_line}" for process_line in listed)
