"""What is decided about the screen without one: columns, order, filters, the past."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.cells import cell_len

from gpuctl.top.shown.alerts import alert_fields
from gpuctl.top.shown.devices import device_fields
from gpuctl.top.shown.field import GAP, Field, cell, fitted, state_cell, wrapped
from gpuctl.top.shown.heading import host_line, trouble_line
from gpuctl.top.shown.instances import instance_fields
from gpuctl.top.shown.more import noun_lines
from gpuctl.top.shown.order import Order, matching, ordered
from gpuctl.top.shown.panes import PANES, Sight, drawn
from gpuctl.top.shown.past import SPAN_SECONDS, Past
from gpuctl.top.shown.promises import asked
from gpuctl.top.shown.told import Focus, Told
from gpud.v1 import alerts_pb2 as a
from gpud.v1 import devices_pb2 as d
from gpud.v1 import history_pb2 as h
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
    field("D", 10, grows=100, least=4),
)


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (8, {"A": 10, "D": 4}),  # what must be there overflows rather than going
        (17, {"A": 10, "D": 5}),
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


@pytest.mark.parametrize("width", [*range(39, 300, 20), 79])
@pytest.mark.parametrize("pane", PANES, ids=lambda pane: pane.id)
def test_every_list_fits_from_40_columns_on(pane: object, width: int) -> None:
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


def test_devices_are_ordered_by_their_numbers_and_the_host_is_last() -> None:
    fields = device_fields(lambda *_: "", t.HostReadings())
    nouns = [samples.host(), *(samples.card(index) for index in (10, 2, 0))]
    found = ordered(nouns, fields, Order(header="DEVICE"))
    assert [each.alias for each in found] == ["gpu0", "gpu2", "gpu10", "host"]


def test_alerts_that_somebody_knows_of_come_after_those_that_are_open() -> None:
    def alert(name: str, severity: int, **more: object) -> a.Alert:
        made = a.Alert(name=name, severity=severity, state=a.ALERT_STATE_FIRING)
        made.MergeFrom(a.Alert(**more))
        return made

    critical, warning = a.ALERT_SEVERITY_CRITICAL, a.ALERT_SEVERITY_WARNING
    known = alert("known", critical, state=a.ALERT_STATE_ACKNOWLEDGED)
    quiet = alert("quiet", critical, silenced_until=samples.moment(60))
    mild, grave = alert("mild", warning), alert("grave", critical)
    alerts = (known, quiet, grave, mild)
    pane = next(each for each in PANES if each.id == "alerts")
    for order in (Order(), Order(header="STATE")):
        found = ordered(pane.nouns(told(alerts=alerts)), alert_fields(samples.NOW), order)
        assert [each.name for each in found] == ["grave", "mild", "known", "quiet"]


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
    line = past.line(samples.card(), samples.NOW, 10)
    assert line == "     ▅▆▆▇█"
    assert past.line(samples.card(1), samples.NOW, 4) == "    "


@pytest.mark.parametrize(
    ("shown", "cpu_percent", "line"),
    [
        (device(99), 0, "  █"),
        (device(None), 99, "   "),  # how full it is would be something else
        (samples.host(), 99, "  █"),
        (samples.host(), None, "   "),
    ],
)
def test_of_the_host_it_is_how_busy_its_cpus_were(
    shown: d.Device, cpu_percent: float | None, line: str
) -> None:
    shown.sample.memory_used_bytes = shown.memory_total_bytes
    host = t.HostReadings(cpu_percent=cpu_percent)
    snapshot = t.Snapshot(time=samples.moment(), devices=[shown], host=host)
    past = Past()
    past.see(snapshot, 1.0)
    assert past.line(shown, samples.NOW, 3) == line
    fields = {field.header: field for field in device_fields(lambda *_: "", host)}
    assert fields["UTIL"].cell(shown, 4)[0][0] == ("-" if line == "   " else "99%")


@pytest.mark.parametrize(
    ("text", "shown", "tone"),
    [
        ("READY", "READY", "good"),
        ("READY DEGRADED", "READY DEGRADED", "bad"),
        ("QUEUED 2", "QUEUED 2", "warn"),
        ("-", "-", "dim"),
        ("", "-", "dim"),
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
        deliveries=[
            a.Delivery(sink="pager", attempts=3, problem="refused"),
            a.Delivery(sink="hook", attempts=2, problem="it answers 500", waiting=True),
        ],
    )
    text = lines_of("alerts/a-1", alerts=(alert,))
    for part in (
        "thermal  gpu0",
        "92 °C",
        "clean its fan",
        "sent to     pager: not told: refused",
    ):
        assert part in text
    assert "hook: tried 2×: it answers 500" in text


@pytest.mark.parametrize(
    ("state", "width", "shown"),
    [
        (a.ALERT_STATE_FIRING, 21, ("CRITICAL", "bad")),
        (a.ALERT_STATE_ACKNOWLEDGED, 12, ("ACKNOWLEDGED", "dim")),
        (a.ALERT_STATE_ACKNOWLEDGED, 21, ("ACKNOWLEDGED CRITICAL", "dim")),
    ],
)
def test_an_alert_in_the_list(state: int, width: int, shown: tuple[str, str]) -> None:
    summary = "gpu0: 92 °C, CRITICAL (from 85 °C, below 80 °C no more)"
    alert = a.Alert(severity=a.ALERT_SEVERITY_CRITICAL, state=state, alias="gpu0", summary=summary)
    fields = {each.header: each for each in alert_fields(samples.NOW)}
    assert fields["STATE"].cell(alert, width) == (shown,)
    # Who it is about is told beside it.
    assert fields["WHAT"].cell(alert, 47)[0][0] == summary.removeprefix("gpu0: ")
    room = {field.header: taken for field, taken in fitted(alert_fields(samples.NOW), 79)}
    assert room == {"STATE": 12, "ABOUT": 8, "SINCE": 6, "WHAT": 47}


@pytest.mark.parametrize("width", [30, 40, 80])
def test_nothing_is_cut_of_what_is_looked_at_closely(width: int) -> None:
    waits = samples.queued(2)
    waits.wait_reason = " ".join(f"word-{number}" for number in range(30))
    instance = samples.instance()
    for phase in range(1, 7):
        instance.phases.add(phase=phase, duration=Duration(nanos=12_345_678))  # type: ignore[arg-type]
    seen = told(reservations=(waits,), instances=(instance,))
    for name, parts in (
        (waits.name, waits.wait_reason.split()),
        (instance.name, ["endpoint", "phases:", *["12ms"] * 6, "requests/s"]),
    ):
        lines = ["".join(text for text, _ in line) for line in noun_lines(seen, name, width)]
        assert all(cell_len(line) <= width for line in lines)
        words = " ".join(lines).split()
        assert [part for part in words if part in parts] == parts


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two", ["one two"]),
        ("one two three four", ["one two", "  three", "  four"]),
        ("onetwothreefour", ["onetwo", "  threef", "  our"]),
        ("名名名名名 x", ["名名名", "  名名 x"]),
        ("12345678  abc", ["12345678", "  abc"]),
        ("", [""]),
    ],
)
def test_words_over_lines(text: str, lines: list[str]) -> None:
    found = wrapped((("", "strong"), (text, "dim")), 8, 2)
    assert ["".join(part for part, _ in line).rstrip() for line in found] == lines


@pytest.mark.parametrize(
    ("health", "shown"),
    [
        (d.DEVICE_HEALTH_HEALTHY, "37.4%"),
        (d.DEVICE_HEALTH_LOST, "-"),
        (d.DEVICE_HEALTH_UNRESPONSIVE, "-"),
    ],
)
def test_of_a_card_that_does_not_answer_nothing_is_told_as_of_now(health: int, shown: str) -> None:
    card = samples.card()
    card.health = health  # type: ignore[assignment]
    kept = h.Series(subject=card.name, field="utilization_percent", unit="percent")
    kept.points.add(time=samples.moment(-5), mean=37.0, last=37.0, count=1)
    focus = Focus(name=card.name, device=card, series=(kept,))
    assert f"utilization_percent, 10 minutes until now: {shown}\n" in lines_of(
        card.name, focus=focus
    )


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
    assert "".join(text for text, _ in trouble_line(told(**changes), 80)) == line


def test_how_much_more_is_wrong_is_told_where_there_is_little_room() -> None:
    line = trouble_line(told(problems=("alerts: no",)), 40)
    assert "".join(text for text, _ in line) == "CRITICAL gpu1: no answer…  (and 1 more)"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (100, "cpu 53%  ram 6/16G  state 60G free  models 1T free  waiting for io 40%"),
        (60, "cpu 53%  ram 6/16G  state 60G free  waiting for io 40%"),
        (40, "cpu 53%  ram 6/16G  waiting for io 40%"),
        (10, "cpu 53%  waiting for io 40%"),
    ],
)
def test_of_the_host_there_is_what_has_room(width: int, line: str) -> None:
    host = t.HostReadings(
        cpu_percent=53,
        io_some_percent=40,
        memory_total_bytes=16 * samples.GIB,
        memory_available_bytes=10 * samples.GIB,
    )
    host.disks.add(what="state", disk="8:1", total_bytes=2**38, free_bytes=60 * samples.GIB)
    host.disks.add(what="models", disk="8:17", total_bytes=2**41, free_bytes=2**40)
    snapshot = t.Snapshot(host=host)
    cells = host_line(told(snapshot=snapshot), width)
    assert "".join(text for text, _ in cells) == line
    assert cells[-1][1] == "warn"
    # One disk is told once, whatever is on it and whenever that was read.
    host.disks[1].disk = "8:1"
    snapshot.host.CopyFrom(host)
    cells = host_line(told(snapshot=snapshot), 100)
    assert "".join(text for text, _ in cells).startswith("cpu 53%  ram 6/16G  disk 60G free  ")


def test_a_list_that_is_filtered_keeps_its_columns() -> None:
    sight = Sight(told=told(), past=Past())
    whole = drawn(PANES[0], sight, Order(), "", 100)
    less = drawn(PANES[0], sight, Order(), "host", 100)
    assert whole.heads == less.heads
    assert [line.key for line in less.lines] == ["devices/host"]
