"""`gpuctl top` over the daemon's restarts and silences, and with whatever a node may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from queue import Queue

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from rich.cells import cell_len

from gpuctl.session import Session
from gpuctl.top import app
from gpuctl.top.grid import Grid
from gpuctl.top.source import Heard, Kept, Lost, News, Source
from gpud.v1 import devices_pb2 as d
from gpud.v1 import history_pb2 as h
from gpud.v1 import instances_pb2 as i
from gpud.v1 import telemetry_pb2 as t
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.top.driving import on_screen
from tests.running import Gpud

GIB = samples.GIB


def snapshots(*devices: d.Device, count: int = 1) -> list[object]:
    """What WatchSnapshots answers, and then nothing for as long as somebody listens."""
    shown = [
        t.WatchSnapshotsResponse(
            snapshot=t.Snapshot(sequence=n, time=samples.moment(n), devices=devices)
        )
        for n in range(1, count + 1)
    ]
    return [*shown, FakeDaemon.HANG]


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers.update(
        WatchSnapshots=snapshots(*samples.devices()),
        QueryHistory=h.QueryHistoryResponse(step=Duration(seconds=5)),
    )


async def test_it_outlives_a_restart_of_the_daemon(gpud: Callable[..., Gpud]) -> None:
    node = gpud(cards=0, extra='[[devices.simulated]]\ncard = "rtx-4090"\n').start()
    async with on_screen(node.address) as screen:
        await screen.until(lambda: screen.row("gpu0"))
        node.kill()
        await screen.shows("gpud is away for ")
        assert screen.row("gpu0")  # what it showed last, as such
        assert screen.app.query_one("#devices", Grid).is_old
        assert "AWAY" in screen.lines[0]
        assert "READY" not in screen.lines[0]
        first = screen.app.told
        node.start()
        await screen.until(lambda: "gpud is away" not in screen.text)
        assert screen.app.told is not first
        await screen.shows("READY")


async def test_a_daemon_that_falls_silent_is_told(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_OLD_SECONDS", 0.5)
    async with on_screen(daemon.address) as screen:
        await screen.until(lambda: screen.row("gpu0"))
        await screen.shows("gpud is away for", "s: it says nothing")
        assert screen.app.query_one("#devices", Grid).is_old


async def test_a_node_without_cards(daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = snapshots()
    daemon.answers["ListInstances"] = i.ListInstancesResponse()
    async with on_screen(daemon.address) as screen:
        await screen.shows("no devices", "nothing is loaded", "1 Devices 0")
        await screen.press("enter", "c", "s", "r", "up", "down", "end", "pagedown", "x")
        assert len(screen.app.screen_stack) == 1


async def test_64_cards_scroll(daemon: FakeDaemon) -> None:
    cards = [samples.card(index) for index in range(64)]
    for index, card in enumerate(cards):
        card.name, card.alias = f"devices/SIM-{index}", f"gpu{index}"
    daemon.answers["WatchSnapshots"] = snapshots(*cards)
    async with on_screen(daemon.address) as screen:
        await screen.until(lambda: screen.row("gpu0"))
        assert "2 Instances 1" in screen.text  # below, still
        assert not screen.row("gpu40")
        await screen.press("end")
        await screen.until(lambda: screen.row("gpu63"))
        assert not screen.row("gpu0")
        await screen.press("home")
        await screen.until(lambda: screen.row("gpu0"))


async def test_names_that_are_long_or_meant_badly(daemon: FakeDaemon) -> None:
    bad = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]" + "名" * 60 + "y" * 300
    card = samples.card()
    card.model_name, card.cordon_reason, card.cordoned = bad, bad, True
    instance = samples.instance()
    instance.name, instance.model, instance.owner = f"instances/{bad}", f"models/{bad}", bad
    node = samples.node(hostname=bad)
    daemon.answers["GetNode"] = type(daemon.answers["GetNode"])(node=node)
    daemon.answers["WatchSnapshots"] = snapshots(card)
    daemon.answers["GetDevice"] = d.GetDeviceResponse(device=card)
    daemon.answers["ListInstances"] = i.ListInstancesResponse(instances=[instance])
    daemon.answers["TailOutput"] = [i.TailOutputResponse(lines=[bad]), FakeDaemon.HANG]
    async with on_screen(daemon.address, size=(120, 30)) as screen:
        await screen.until(lambda: screen.row("gpu0"))
        await screen.shows("[bold red]x[/]名")
        assert "\x1b" not in screen.text
        await screen.press("2", "enter")
        await screen.shows("READY  [bold", "red]x[/]名", "owner [bold")
        await screen.press("escape", "u")
        await screen.shows("Unload instances/[bold", "red]x[/]名")
        assert all(cell_len(line) <= 120 for line in screen.lines)


async def test_an_engine_s_output_is_followed_closely(daemon: FakeDaemon) -> None:
    more, long = threading.Event(), " ".join(f"slot {number}" for number in range(14))
    daemon.answers["TailOutput"] = [
        i.TailOutputResponse(lines=["first words"]),
        lambda: more.wait(20),
        i.TailOutputResponse(lines=[long, "\x1b[31mlast words"]),
        FakeDaemon.HANG,
    ]
    async with on_screen(daemon.address) as screen:
        await screen.until(lambda: screen.row("tiny-7f3k"))
        await screen.press("2", "enter")
        await screen.shows("first words", "tiny-7f3k", "READY")
        more.set()
        await screen.shows("last words")
        # A line that is longer than the screen goes on below, also once the screen is another.
        for width in (80, 40):
            await screen.pilot.resize_terminal(width, 24)
            await screen.until(lambda: "".join(long.split()) in "".join(screen.text.split()))
        await screen.pilot.resize_terminal(80, 24)
        await screen.press("escape")
        await screen.shows("1 Devices")
    assert daemon.ended["TailOutput"].wait(20)


async def test_what_is_refused_is_told_and_the_rest_goes_on(daemon: FakeDaemon) -> None:
    daemon.answers["ListAlerts"] = Refusal(
        code=StatusCode.PERMISSION_DENIED, message="not for you", reason="ROLE_MISSING"
    )
    daemon.answers["WatchSnapshots"] = snapshots(samples.card())
    async with on_screen(daemon.address) as screen:
        await screen.shows("cannot list alerts: not for you")
        assert screen.row("gpu0")
        assert screen.row("tiny-7f3k")


async def test_a_gpud_that_keeps_no_history_is_followed_all_the_same(daemon: FakeDaemon) -> None:
    daemon.answers["QueryHistory"] = Refusal(
        code=StatusCode.FAILED_PRECONDITION, message="it is off", reason="HISTORY_OFF"
    )
    async with on_screen(daemon.address) as screen:
        await screen.until(lambda: screen.row("gpu0"))


async def test_what_was_kept_is_drawn_at_once(daemon: FakeDaemon) -> None:
    series = h.Series(subject="devices/SIM-0000", field="utilization_percent", unit="percent")
    for back in range(300, 0, -5):
        series.points.add(time=samples.moment(-back), mean=99.0 if back > 150 else 1.0, count=5)
    daemon.answers["QueryHistory"] = h.QueryHistoryResponse(
        series=[series], step=Duration(seconds=5)
    )
    of_cpus = h.Series(subject="host", field="cpu_percent", unit="percent", points=series.points)
    daemon.answers["QueryHistory"].series.append(of_cpus)
    async with on_screen(daemon.address) as screen:
        await screen.until(lambda: screen.cells("devices", "gpu0"))
        for name in ("gpu0", "host"):
            assert screen.cells("devices", name)["5 MIN"][0] == "█"
            assert screen.cells("devices", name)["5 MIN"][-2] == "▁"
    assert daemon.requests["QueryHistory"][0].fields == ["utilization_percent", "cpu_percent"]


def test_it_never_asks_more_often_than_snapshots_come(daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = snapshots(*samples.devices(), count=5)
    session, heard = Session(), []
    session.set(address=daemon.address)
    done = threading.Event()

    def deliver(news: News) -> None:
        heard.append(news)
        if sum(isinstance(each, Heard) for each in heard) == 5:
            done.set()

    source = Source(session.client, 2.5, deliver)
    source.start()
    assert done.wait(30)
    source.stop()
    session.close()
    assert isinstance(heard[0], Kept)
    assert not any(isinstance(each, Lost) for each in heard)
    (watched,) = daemon.requests["WatchSnapshots"]
    assert (watched.interval.seconds, watched.interval.nanos) == (2, 500_000_000)
    for name in ("GetNode", "ListInstances", "ListReservations", "ListAlerts"):
        assert len(daemon.requests[name]) == 5
    assert len(daemon.requests["QueryHistory"]) == 1
    assert not daemon.requests["GetDevice"]


def test_a_slow_look_does_not_bring_back_what_was(daemon: FakeDaemon) -> None:
    more, held, late = (threading.Event() for _ in range(3))
    first, second, hang = snapshots(*samples.devices(), count=2)
    daemon.answers["WatchSnapshots"] = [first, lambda: more.wait(60), second, hang]
    numbers, listed = count(1), daemon.answers["ListInstances"]

    def listing(_: object) -> object:
        if next(numbers) == 2:  # of the look
            held.set()
            late.wait(60)
        return listed

    daemon.answers["ListInstances"] = listing
    session, heard = Session(), Queue[News]()
    session.set(address=daemon.address)
    source = Source(session.client, 1.0, heard.put)

    def sequence() -> int:
        news = heard.get(timeout=60)
        assert isinstance(news, Heard)
        return news.told.snapshot.sequence

    source.start()
    assert isinstance(heard.get(timeout=60), Kept)
    assert sequence() == 1
    looking = threading.Thread(target=source.look)
    looking.start()
    assert held.wait(60)
    more.set()
    assert sequence() == 2
    late.set()
    looking.join(60)
    assert heard.empty()
    source.look()
    assert sequence() == 2
    source.stop()
    session.close()


def test_no_news_come_while_others_do(daemon: FakeDaemon) -> None:
    """What was kept and that gpud is away too: somebody may look just then."""
    first, _ = snapshots(*samples.devices())
    daemon.answers["WatchSnapshots"] = [first, FakeDaemon.HANG]
    session, heard = Session(), Queue[tuple[type[News], bool]]()
    session.set(address=daemon.address)
    source = Source(
        session.client, 1.0, lambda news: heard.put((type(news), source._lock.locked()))
    )
    source.start()
    assert [heard.get(timeout=60) for _ in range(2)] == [(Kept, True), (Heard, True)]
    daemon.stop()
    assert heard.get(timeout=60) == (Lost, True)
    source.stop()
    session.close()


def test_a_source_that_is_stopped_while_gpud_is_away_ends_at_once(daemon: FakeDaemon) -> None:
    daemon.stop()
    session, lost = Session(), threading.Event()
    session.set(address=daemon.address)
    source = Source(session.client, 1.0, lambda news: isinstance(news, Lost) and lost.set())
    source.start()
    assert lost.wait(30)
    source.stop()
    session.close()
    assert not source._thread.is_alive()
