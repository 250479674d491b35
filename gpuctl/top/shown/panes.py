"""Pure: the lists that there are, and each as it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuctl.glance.trouble import is_open
from gpuctl.messages import seconds_of
from gpuctl.tables import clean
from gpuctl.top.shown.alerts import alert_fields, alert_text, by_need
from gpuctl.top.shown.devices import device_fields, device_text
from gpuctl.top.shown.field import Cell, Drawn, Field, Head, Line, fitted
from gpuctl.top.shown.instances import instance_fields, instance_text
from gpuctl.top.shown.order import Order, matching, ordered
from gpuctl.top.shown.past import Past
from gpuctl.top.shown.promises import holder_fields, queue_fields, reservation_text
from gpuctl.top.shown.told import Told
from gpud.v1.devices_pb2 import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the lists are drawn from."""

    told: Told
    past: Past

    @property
    def now(self) -> float:
        """By gpud's clock, in seconds since the epoch."""
        return seconds_of(self.told.snapshot.time)

    def line(self, device: Device, width: int) -> str:
        """The last minutes of a device."""
        return self.past.line(device, self.now, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """A list: its nouns have names, and `text` is what a filter looks into."""

    id: str
    title: str
    short: str  # where there is little room
    empty: str
    nouns: Callable[[Told], Sequence[Any]]
    fields: Callable[[Sight], tuple[Field[Any], ...]]
    text: Callable[[Any], str]


# In the order of their keys, 1 to 5; the first stands above, one of the others below.
PANES: Final = (
    Pane(
        id="devices",
        title="Devices",
        short="Devices",
        empty="no devices",
        nouns=lambda told: told.devices,
        fields=lambda sight: device_fields(sight.line, sight.told.snapshot.host),
        text=device_text,
    ),
    Pane(
        id="instances",
        title="Instances",
        short="Inst",
        empty="nothing is loaded; gpuctl load MODEL",
        nouns=lambda told: told.instances,
        fields=lambda sight: instance_fields(sight.told.aliases),
        text=instance_text,
    ),
    Pane(
        id="reservations",
        title="Reservations",
        short="Res",
        empty="nothing is promised; gpuctl reserve --vram 8GiB",
        nouns=lambda told: told.holders,
        fields=lambda sight: holder_fields(sight.told.aliases, sight.now),
        text=reservation_text,
    ),
    Pane(
        id="queue",
        title="Queue",
        short="Queue",
        empty="nobody waits",
        nouns=lambda told: told.queue,
        fields=lambda sight: queue_fields(sight.now),
        text=reservation_text,
    ),
    Pane(
        id="alerts",
        title="Alerts",
        short="Alerts",
        empty="nothing fires",
        nouns=lambda told: by_need(told.alerts),
        fields=lambda sight: alert_fields(sight.now),
        text=alert_text,
    ),
)


def drawn(pane: Pane, sight: Sight, order: Order, wanted: str, width: int) -> Drawn:
    """The rows that `wanted` leaves, in their order, in the columns that fit."""
    fields = pane.fields(sight)
    columns = fitted(fields, width)
    nouns = ordered(matching(pane.nouns(sight.told), pane.text, wanted), fields, order)
    return Drawn(
        heads=tuple(
            Head(
                field.header,
                each,
                field.right,
                "sorted" if field.header == order.header else "dim",
            )
            for field, each in columns
        ),
        lines=tuple(
            Line(noun.name, tuple(field.cell(noun, each) for field, each in columns))
            for noun in nouns
        ),
        empty=f"no row has {clean(wanted.strip())}; Esc shows all"
        if wanted.strip() and pane.nouns(sight.told)
        else pane.empty,
    )


def headers(pane: Pane, sight: Sight, width: int) -> list[str]:
    """Those by which it can be sorted: what is seen."""
    return [field.header for field, _ in fitted(pane.fields(sight), width)]


def title(pane: Pane, told: Told | None, *, is_shown: bool, is_narrow: bool = False) -> Cell:
    """`2 Instances 5`, with the tone of what somebody has to look at; where narrow, `Inst 5`."""
    nouns = pane.nouns(told) if told is not None else ()
    fires = pane.id == "alerts" and any(map(is_open, nouns))
    tone = "bad" if fires else "warn" if pane.id == "queue" and nouns else ""
    name_tone = "sorted" if is_shown else "dim"
    count = (f" {len(nouns)}", tone or "dim")
    if is_narrow:
        return ((pane.short, name_tone), count)
    return ((f"{PANES.index(pane) + 1} ", "dim"), (pane.title, name_tone), count)


def order_text(order: Order) -> str:
    """`by UTIL, the greatest first`; empty for gpud's own order."""
    if not order.header:
        return "turned round" if order.is_reversed else ""
    return f"by {order.header}{' turned round' if order.is_reversed else ''}"
