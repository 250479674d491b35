"""What is decided about the screen without one: columns, order, filters, the past."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.protobuf.duration_pb2 import Duration

from gpuctl.top.shown.field import GAP, Field, cell, fitted, state_cell
from gpuctl.top.shown.heading import trouble_line
from gpuctl.top.shown.instances import instance_fields
from gpuctl.top.shown.more import noun_lines
from gpuctl.top.shown.order import Order, matching, ordered
from gpuctl.top.shown.panes import PANES, Sight, drawn
from gpuctl.top.shown.past import SPAN_SECONDS, Past
from gpuctl.top.shown.promises import asked
from gpuctl.top.shown.told import Told
from gpud.v1 import alerts_pb2 as a
from gpud.v1 import devices_pb2 as d
from gpud.v1 import instances_pb2 as i
from gpud.v1 import reservations_pb2 as r
from gpud.v1 import telemetry_pb2 as t
from tests.gpuctl import samples


@dataclass(frozen=True)
class Noun:
    name: str
    value: float | str | None


def field(header: str, width: int, **more: object) -> Field[Noun]:
    return Field(
        header=header,
        cell=lambda noun, _: cell(str(noun.value)),
        key=lambda noun: noun.value,
        width=width,
        **more,  # type: ignore[arg-type]
    )


def told(**changes: object) -> Told:
    snapshot = t.Snapshot(time=samples.moment(), devices=samples.devices())
    return Told(**{"node": samples.node(), "snapshot": snapshot, **changes})  # type: ignore[arg-type]


FIELDS = (
    field("A", 10),
    field("B", 10, rank=2),
    field("C", 10, rank=1, grows=5),
    field("D", 10, grows=100),
)


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (10, {"A": 10, "D": 10}),  # what must be there overflows rather than going
        (22, {"A": 10, "D": 10}),
        (33, {"A": 10, "D": 21}),
        (34, {"A": 10, "C": 10, "D": 10}),
        (46, {"A": 10, "B": 10, "C": 10, "D": 10}),
        (50, {"A": 10, "B": 10, "C": 12, "D": 12}),
        (100, {"A": 10, "B": 10, "C": 15, "D": 59}),
    ],
)
def test_columns_share_the_width(width: int, widths: dict[str, int]) -> None:
    assert {each.header: taken for each, taken in fitted(FIELDS, width)} == widths


@pytest.mark.parametrize("width", range(80, 300, 7))
@pytest.mark.parametrize("pane", PANES, ids=lambda pane: pane.id)
def test_every_list_fits_from_80_columns_on(pane: object, width: int) -> None:
    sight = Sight(told=told(), past=Past())
    columns = fitted(pane.fields(sight), width)  # type: ignore[attr-defined]
    assert sum(taken for _, taken in columns) + GAP * (len(columns) - 1) <= width


@pytest.mark.parametrize(
    ("values", "order", "names"),
    [
        ([1.0, None, 3.0, 2.0], Order(), "abcd"),
        ([1.0, None, 3.0, 2.0], Order(is_reversed=True), "dcba"),
        ([1.0, None, 3.0, 2.0], Order(header="V"), "cdab"),
        ([1.0, None, 3.0, 2.0], Order(header="V", is_reversed=True), "adcb"),
        (["x", "z", "y"], Order(header="V"), "acb"),
        (["x", "z", "y"], Order(header="V", is_reversed=True), "bca"),
        ([1.0, 2.0], Order(header="GONE"), "ab"),
    ],
)
def test_rows_are_ordered(values: list[float | str | None], order: Order, names: str) -> None:
    nouns = [Noun(name, value) for name, value in zip("abcd", values, strict=False)]
    found = ordered(nouns, [field("V", 5)], order)
    assert "".join(noun.name for noun in found) == names


def test_each_column_has_its_turn() -> None:
    order, seen = Order(), []
    for _ in range(4):
        order = order.next_of(["A", "B"])
        seen.append(order.header)
    assert seen == ["A", "B", "", "A"]


def test_a_filter_wants_every_word() -> None:
    rows = ["GPU0 tiny ada", "gpu1 tiny bob", "gpu1 big ada"]
    assert matching(rows, str, "tiny ADA") == rows[:1]
    assert matching(rows, str, "  ") == rows
    assert matching(rows, str, "nobody") == []


def device(busy: float | None) -> d.Device:
    made = samples.card()
    if busy is None:
        made.sample.ClearField("utilization_percent")
    else:
        made.sample.utilization_percent = busy
    return made


def test_the_last_minutes_in_a_line() -> None:
    past = Past()
    begin = samples.NOW - SPAN_SECONDS
    for second in range(150, 300):
        moment = samples.moment(int(begin - samples.NOW) + second)
        past.see(t.Snapshot(time=moment, devices=[device(second / 3)]), 1.0)
    line = past.line("devices/SIM-0000", samples.NOW, 10)
    assert line == "     ▅▆▆▇█"
    assert past.line("devices/other", samples.NOW, 4) == "    "


def test_a_card_that_refuses_utilization_shows_how_full_it_is() -> None:
    past = Past()
    full = device(None)
    full.sample.memory_used_bytes = full.memory_total_bytes
    past.see(t.Snapshot(time=samples.moment(), devices=[full]), 1.0)
    assert past.line("devices/SIM-0000", samples.NOW, 3) == "  █"


@pytest.mark.parametrize(
    ("text", "shown", "tone"),
    [
        ("READY", "READY", "good"),
        ("READY DEGRADED", "READY DEGRADED", "bad"),
        ("QUEUED 2", "QUEUED 2", "warn"),
        ("-", "–", "dim"),
        ("", "–", "dim"),
    ],
)
def test_states_have_their_tones(text: str, shown: str, tone: str) -> None:
    assert state_cell(text) == ((shown, tone),)


def test_what_an_engine_does() -> None:
    busy = samples.instance()
    busy.metrics.MergeFrom(
        i.InstanceMetrics(
            requests_running=4,
            slots=4,
            slots_full=True,
            requests_waiting=3,
            kv_used_percent=71.6,
            generated_tokens_per_second=120.4,
            time_to_first_token=i.Latency(p99=Duration(nanos=250_000_000), source="engine"),
        )
    )
    fields = {each.header: each for each in instance_fields(lambda names: ",".join(names))}
    cells = {header: each.cell(busy, each.width)[0] for header, each in fields.items()}
    assert cells["REQUESTS"] == ("4/4 +3", "warn")
    assert cells["TOK/S"] == ("120", "")
    assert cells["TTFT p99"] == ("250ms", "")
    assert cells["KV"] == ("72%", "")
    assert cells["p99"] == ("2s", "")


def test_shapes_in_the_order_of_preference() -> None:
    shapes = [r.Shape(bytes=4 * 2**30), r.Shape(bytes=2**31, device_count=2)]
    assert asked(shapes) == "4G or 2x2G"


def lines_of(name: str, **changes: object) -> str:
    cells = noun_lines(told(**changes), name, 80)
    return "\n".join("".join(text for text, _ in line) for line in cells)


def test_a_reservation_whole() -> None:
    text = lines_of("reservations/r-4m2k", reservations=(samples.queued(2),))
    for part in ("QUEUED", "ada@rig", "4G or 2x2G", "place       2", "1.25 GiB grantable"):
        assert part in text


def test_an_alert_whole() -> None:
    alert = a.Alert(
        name="alerts/a-1",
        rule="thermal",
        severity=a.ALERT_SEVERITY_CRITICAL,
        state=a.ALERT_STATE_FIRING,
        alias="gpu0",
        since=samples.moment(),
        summary="gpu0 is 92 °C hot",
        remedy="clean its fan",
        deliveries=[a.Delivery(sink="pager", attempts=3, problem="refused")],
    )
    text = lines_of("alerts/a-1", alerts=(alert,))
    for part in ("thermal  gpu0", "92 °C", "clean its fan", "pager, 3 attempts, not delivered"):
        assert part in text


def test_what_is_gone_is_told() -> None:
    assert "is there no more" in lines_of("instances/i-9")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"snapshot": t.Snapshot(devices=[samples.card()])}, ""),
        ({}, "CRITICAL gpu1: no answer within 2 s"),
        ({"problems": ("alerts: no",)}, "CRITICAL gpu1: no answer within 2 s  (and 1 more)"),
        (
            {"snapshot": t.Snapshot(), "problems": ("alerts: no", "instances: no")},
            "cannot list alerts: no  (and 1 more)",
        ),
    ],
)
def test_the_worst_of_what_is_wrong(changes: dict[str, object], line: str) -> None:
    assert "".join(text for text, _ in trouble_line(told(**changes))) == line


def test_a_list_that_is_filtered_keeps_its_columns() -> None:
    sight = Sight(told=told(), past=Past())
    whole = drawn(PANES[0], sight, Order(), "", 100)
    less = drawn(PANES[0], sight, Order(), "host", 100)
    assert whole.heads == less.heads
    assert [line.key for line in less.lines] == ["devices/host"]
