"""`reserve --wait`: in the queue, out of it, and given up."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpuctl.access.context import Context
from gpuctl.client import Client
from gpuctl.failures import Failure
from gpuctl.leases import waiting
from gpuctl.leases.signals import Caught
from gpuctl.leases.streams import Inbox
from gpuctl.leases.telling import Telling
from gpuctl.leases.waiting import Asking, release
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.leases.conftest import NAME, granted, seen
from tests.gpuctl.leases.processes import gpuctl_process, line_with, signalled
from tests.gpuctl.test_terminal import WAIT_SECONDS, on_a_terminal

WAIT = "reserve --vram 4GiB --wait 20s"


@pytest.fixture(autouse=True)
def _queued(daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued(2))


def ended(state: int, why: str) -> r.WatchReservationResponse:
    return seen(samples.reservation(state=state, state_reason=why))


def test_what_is_granted_at_once_is_not_waited_for(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=granted())
    told = gpuctl(WAIT)
    assert told.code == 0
    assert "GRANTED" in told.out
    assert told.err == ""
    assert "WatchReservation" not in daemon.requests


def test_it_waits_until_granted_and_tells_each_place_once(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["WatchReservation"] = [
        seen(samples.queued(2)),
        seen(samples.queued(2)),
        seen(samples.queued(1)),
        seen(granted()),
    ]
    told = gpuctl(f"{WAIT} -o name")
    assert (told.code, told.out) == (0, f"{NAME}\n")
    assert told.err.splitlines() == [
        f"r-4m2k waits, position {position}: gpu0 has 1.25 GiB grantable of the 4 GiB it needs; "
        "expected in 40s; gives up in 10m"
        for position in (2, 1)
    ]
    assert "Release" not in daemon.requests


def test_a_wait_that_runs_out_ends_with_124(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchReservation"] = [
        seen(samples.queued(2)), ended(r.RESERVATION_STATE_EXPIRED, "gpu0 stayed full")
    ]  # fmt: skip
    told = gpuctl(WAIT)
    assert told.code == 124
    assert f"waited 20s in vain for {NAME}: gpu0 stayed full" in told.err
    assert "gpuctl explain" in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("state", "word"),
    [(r.RESERVATION_STATE_RELEASED, "RELEASED"), (r.RESERVATION_STATE_REVOKED, "REVOKED")],
)
def test_one_that_another_ends_says_so(
    state: int, word: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["WatchReservation"] = [ended(state, "by bob@rig")]
    told = gpuctl(WAIT)
    assert told.code == 74
    assert f"{NAME} was {word} by another while it waited: by bob@rig" in told.err


def test_a_connection_that_breaks_off_is_made_again(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gone = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")
    answers = iter([[seen(samples.queued(2)), gone], gone, [seen(granted())]])
    daemon.answers["WatchReservation"] = lambda _: next(answers)
    told = gpuctl(WAIT)
    assert told.code == 0
    assert told.err.count("broke off; trying again") == 1


def test_one_that_gpud_forgot(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchReservation"] = Refusal(
        code=grpc.StatusCode.NOT_FOUND, message="cannot find it", reason="RESERVATION_NOT_FOUND"
    )
    assert gpuctl(WAIT).code == 69


def test_a_daemon_that_stays_away_leaves_it_queued(
    daemon: FakeDaemon,
) -> None:
    daemon.answers["WatchReservation"] = Refusal(
        code=grpc.StatusCode.UNAVAILABLE, message="Socket closed"
    )
    client = Client(Context(address=daemon.address), WAIT_SECONDS)
    telling = Telling(now=lambda: float(samples.NOW))
    request = r.ReserveRequest(bytes=samples.GIB, max_wait=Duration(seconds=20))
    asking = Asking(client, request, Inbox(), telling, reconnect_seconds=0.2)
    with closing(client), pytest.raises(Failure, match="it is still queued") as raised:
        asking.obtain()
    assert raised.value.exit_code == 78
    assert f"cannot wait any longer for {NAME}" in raised.value.message
    assert any(f"gpuctl release {NAME}" in note for note in raised.value.notes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_queue(number: signal.Signals, daemon: FakeDaemon) -> None:
    daemon.answers["WatchReservation"] = [seen(samples.queued(2)), FakeDaemon.HANG]
    with gpuctl_process(daemon, *WAIT.split()) as process:
        line_with(process.stderr, "position 2")
        out, err = signalled(process, number)
    assert process.returncode == 128 + number
    assert f"{NAME} is released" in err
    assert "Traceback" not in err
    assert out == ""
    assert [request.name for request in daemon.requests["Release"]] == [NAME]


FOR_A_COMMAND = [signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2]


def came(number: signal.Signals) -> Caught:
    return Caught(number=number, by_terminal=False)


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with closing(Client(Context(address=daemon.address), WAIT_SECONDS)) as made:
        yield made


def asking(client: Client, inbox: Inbox) -> Asking:
    request = r.ReserveRequest(bytes=samples.GIB, max_wait=Duration(seconds=20))
    return Asking(client, request, inbox, Telling(now=lambda: float(samples.NOW)))


@pytest.mark.parametrize("number", FOR_A_COMMAND)
def test_a_terminal_that_is_resized_ends_no_wait(
    number: signal.Signals, client: Client, daemon: FakeDaemon
) -> None:
    inbox = Inbox()
    inbox.put(came(number))
    daemon.answers["WatchReservation"] = [
        seen(samples.queued(2)), lambda: inbox.put(came(number)), seen(granted())
    ]  # fmt: skip
    got = asking(client, inbox).obtain()
    assert got.state == r.RESERVATION_STATE_GRANTED
    assert "Release" not in daemon.requests


def test_a_signal_before_the_answer_releases_what_it_brings(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LAST_ANSWER_SECONDS", WAIT_SECONDS)
    inbox = Inbox()
    daemon.answers["Reserve"] = [
        lambda: inbox.put(came(signal.SIGINT)), r.ReserveResponse(reservation=granted())
    ]  # fmt: skip
    with pytest.raises(Failure, match=f"{NAME} is released") as raised:
        asking(client, inbox).obtain()
    assert raised.value.exit_code == 128 + signal.SIGINT
    assert [request.name for request in daemon.requests["Release"]] == [NAME]
    assert "WatchReservation" not in daemon.requests


def test_sigquit_ends_a_wait_where_it_is_caught(client: Client, daemon: FakeDaemon) -> None:
    inbox = Inbox()
    daemon.answers["WatchReservation"] = [
        lambda: inbox.put(came(signal.SIGQUIT)), FakeDaemon.HANG
    ]  # fmt: skip
    with pytest.raises(Failure, match="is released") as raised:
        asking(client, inbox).obtain()
    assert raised.value.exit_code == 128 + signal.SIGQUIT


@pytest.mark.parametrize(("number", "goes_on"), [(signal.SIGWINCH, True), (signal.SIGTERM, False)])
def test_a_release_is_given_up_for_a_signal_that_ends(
    number: signal.Signals, goes_on: bool, client: Client, daemon: FakeDaemon
) -> None:
    gone = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")
    answers = iter([gone])
    done = r.ReleaseResponse(reservation=granted())
    daemon.answers["Release"] = lambda _: next(answers, done)
    inbox = Inbox()
    inbox.put(came(number))
    assert (release(client, NAME, inbox) is None) is goes_on
    assert len(daemon.requests["Release"]) == (2 if goes_on else 1)


def test_a_terminal_has_one_line_that_changes(daemon: FakeDaemon) -> None:
    daemon.answers["WatchReservation"] = [
        seen(samples.queued(2)), seen(samples.queued(1)), seen(granted())
    ]  # fmt: skip
    shown = on_a_terminal(daemon, *WAIT.split(), COLUMNS="60").decode()
    waiting, _, table = shown.rpartition("\x1b[K")
    assert "\n" not in waiting
    assert re.findall(r"position (\d)", waiting) == ["2", "2", "1"]
    assert all(len(line) < 60 for line in waiting.replace("\r", "").split("\x1b[K"))
    assert table.startswith("RESERVATION")
