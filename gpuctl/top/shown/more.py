"""Pure: one reservation or one alert, whole; and which noun a name leads to."""

from __future__ import annotations

from collections.abc import Iterator

from gpuctl.glance.trouble import alert_subject
from gpuctl.glance.words import delivery_text
from gpuctl.messages import known, seconds_of, word
from gpuctl.tables import clean, moment_text
from gpuctl.top.shown.alerts import alert_tone
from gpuctl.top.shown.detail import device_lines, instance_lines
from gpuctl.top.shown.field import Cell, cell, state_cell, wrapped
from gpuctl.top.shown.promises import asked
from gpuctl.top.shown.told import Told
from gpuctl.units import size_text, span_text
from gpud.v1.alerts_pb2 import Alert
from gpud.v1.reservations_pb2 import Reservation

_LABEL = 12


def noun_lines(told: Told, name: str, width: int) -> list[Cell]:
    """What there is to tell of a noun, by its name; that it is gone, where it is."""
    is_plain = name.partition("/")[0] in {"devices", "instances"}
    indent = 2 if is_plain else _LABEL
    return [part for line in _lines(told, name, width) for part in wrapped(line, width, indent)]


def _lines(told: Told, name: str, width: int) -> Iterator[Cell]:
    """Those that are no table of labels are made for the width; any may be longer."""
    if (device := told.device(name)) is not None:
        yield from device_lines(told, device, width)
    elif (instance := told.instance(name)) is not None:
        yield from instance_lines(told, instance, width)
    elif (held := next((r for r in told.reservations if r.name == name), None)) is not None:
        yield from _reservation_lines(told, held)
    elif (alert := next((a for a in told.alerts if a.name == name), None)) is not None:
        yield from _alert_lines(told, alert)
    else:
        yield ((f"{clean(name)} is there no more", "warn"),)


def _reservation_lines(told: Told, held: Reservation) -> Iterator[Cell]:
    now = seconds_of(told.snapshot.time)
    yield ((f"{clean(held.name)}  ", "strong"), *state_cell(word(held, "state")))
    yield _line("owner", held.owner)
    yield _line("asked for", asked(held.shapes))
    for grant in held.grants:
        used = size_text(known(grant, "observed_bytes"))
        on = told.aliases([grant.device])
        yield _line(f"on {on}", f"{size_text(grant.bytes)} promised, {used} in use")
    if held.HasField("expire_time"):
        left = span_text(max(0.0, seconds_of(held.expire_time) - now))
        yield _line("ends in", f"{left}, unless it is renewed")
    if held.HasField("queue_position"):
        yield _line("place", str(held.queue_position))
        yield _line("waits for", held.wait_reason)
    yield _line("priority", word(held, "priority"))
    yield _line("sharing", word(held, "sharing"))
    yield _line("instance", held.instance)
    yield _line("labels", " ".join(f"{key}={held.labels[key]}" for key in sorted(held.labels)))
    yield _line("why", held.state_reason)
    for process in held.processes:
        yield _line("process", f"{process.pid} {process.process_name}")


def _alert_lines(told: Told, alert: Alert) -> Iterator[Cell]:
    yield (
        (f"{clean(alert.rule)}  {clean(alert_subject(alert))}  ", "strong"),
        (f"{word(alert, 'severity')} {word(alert, 'state')}", alert_tone(alert)),
    )
    yield _line("what", alert.summary)
    yield _line("do", alert.remedy)
    yield _line("since", moment_text(alert.since))
    if alert.acknowledged_by:
        comment = f": {alert.acknowledge_comment}" if alert.acknowledge_comment else ""
        yield _line("known to", f"{alert.acknowledged_by}{comment}")
    if alert.HasField("silenced_until"):
        yield _line("silenced", f"until {moment_text(alert.silenced_until)}")
    for delivery in alert.deliveries:
        yield _line("sent to", f"{delivery.sink}: {delivery_text(delivery)}")


def _line(name: str, value: str) -> Cell:
    return ((name.ljust(_LABEL), "dim"), *cell(clean(value)))
