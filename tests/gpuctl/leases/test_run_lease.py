"""`gpuctl run`: its lease, kept, lost, or to be given up for another."""

from __future__ import annotations

import signal
import threading

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl.leases.commands import LISTEN, released, shell
from tests.gpuctl.leases.conftest import NAME, granted, kept, seen
from tests.gpuctl.leases.processes import gpuctl_process, line_with, signalled
from tests.gpuctl.test_terminal import WAIT_SECONDS


def test_the_lease_is_kept_alive_over_a_restart_of_the_daemon(daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=granted(ttl_seconds=3.0))
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        daemon.asked("KeepAlive", 3)
        daemon.stop()
        told = line_with(process.stderr, "the command goes on")
        assert "restarted" not in told
        before = len(daemon.requests["KeepAlive"])
        daemon.start_again()
        line_with(process.stderr, f"connected to gpud again; {NAME} goes on")
        daemon.asked("KeepAlive", before + 2)
        out, err = signalled(process, signal.SIGTERM)
    assert process.returncode == 7
    assert out == "SIGTERM\n"
    assert err == ""
    assert released(daemon) == [NAME]


def test_a_daemon_that_does_not_answer_is_asked_again(daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=granted(ttl_seconds=0.3))
    silent = threading.Event()
    first = iter([[lambda: silent.wait(WAIT_SECONDS)]])
    daemon.answers["KeepAlive"] = lambda _: next(first, kept())
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stderr, "connecting again")
        line_with(process.stderr, "connected to gpud again")
        silent.set()
        signalled(process, signal.SIGTERM)
    assert process.returncode == 7


def test_a_daemon_that_is_away_at_the_end_is_told(daemon: FakeDaemon) -> None:
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        daemon.stop()
        line_with(process.stderr, "the command goes on")
        _, err = signalled(process, signal.SIGTERM)
    assert process.returncode == 7
    assert f"{NAME} could not be released, so it ends after its ttl" in err


def test_a_release_waits_for_a_daemon_that_restarts(daemon: FakeDaemon) -> None:
    gone = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")
    answers = iter([gone, gone])
    done = r.ReleaseResponse(reservation=granted())
    daemon.answers["Release"] = lambda _: next(answers, done)
    with gpuctl_process(daemon, "run", "--vram", "4GiB", "--", "true") as process:
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (0, "")
    ids = {request.request_id for request in daemon.requests["Release"]}
    assert (len(released(daemon)), len(ids)) == (3, 1)


@pytest.mark.parametrize("told_by", ["KeepAlive", "WatchReservation"])
def test_a_lease_that_is_lost_ends_the_command(told_by: str, daemon: FakeDaemon) -> None:
    gone = granted(state=r.RESERVATION_STATE_REVOKED, state_reason="for reservations/r-9")
    lost = threading.Event()
    daemon.answers["GetReservation"] = r.GetReservationResponse(reservation=gone)
    if told_by == "KeepAlive":
        daemon.answers["KeepAlive"] = [
            lambda: lost.wait(WAIT_SECONDS), kept(state=r.RESERVATION_STATE_REVOKED)
        ]  # fmt: skip
    else:
        daemon.answers["WatchReservation"] = [
            seen(granted()), lambda: lost.wait(WAIT_SECONDS), seen(gone)
        ]  # fmt: skip
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        lost.set()
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 7
    assert out == "SIGTERM\n"
    assert f"{NAME} IS LOST" in err
    assert "it is REVOKED: for reservations/r-9; it gets SIGTERM now" in err


def test_a_script_that_ends_leaves_nothing_behind_that_would_keep_the_bytes(
    daemon: FakeDaemon,
) -> None:
    gone = granted(state=r.RESERVATION_STATE_REVOKED)
    lost = threading.Event()
    daemon.answers["WatchReservation"] = [
        seen(granted()),
        lambda: lost.wait(WAIT_SECONDS),
        seen(gone),
    ]
    daemon.answers["KeepAlive"] = [FakeDaemon.HANG]
    # The shell dies of SIGTERM at once; what it started tells of it first, in its own session.
    worker = "trap 'echo worker ended; exit' TERM; echo up; while :; do read -r _ <&3; done"
    script = f'mkfifo "$FIFO"; exec 3<>"$FIFO"; setsid sh -c "{worker}"; echo not here'
    fifo = f"{daemon.address.removeprefix('unix://')}.fifo"
    options = ("run", "--vram", "4GiB")
    with gpuctl_process(daemon, *options, *shell(script), FIFO=fifo) as process:
        line_with(process.stdout, "up")
        lost.set()
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 143
    assert out == "worker ended\n"


def test_a_lease_that_gpud_forgot_is_lost(daemon: FakeDaemon) -> None:
    up = threading.Event()
    missing = Refusal(code=grpc.StatusCode.NOT_FOUND, message="cannot find it", reason="X")
    daemon.answers["KeepAlive"] = [lambda: up.wait(WAIT_SECONDS), missing]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        up.set()
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 7
    assert "gpud no longer knows it: cannot find it" in err


def test_one_that_warns_lets_the_command_go_on(daemon: FakeDaemon) -> None:
    daemon.answers["KeepAlive"] = kept(state=r.RESERVATION_STATE_EXPIRED)
    options = ("run", "--vram", "4GiB", "--on-loss", "warn", "--quiet")
    with gpuctl_process(daemon, *options, *LISTEN) as process:
        line_with(process.stderr, "IS LOST while the command runs, it is EXPIRED")
        line_with(process.stdout, "up")
        process.send_signal(signal.SIGUSR1)
        line_with(process.stdout, "SIGUSR1")
        signalled(process, signal.SIGTERM)
    assert process.returncode == 7


def notice(seconds: float) -> r.PreemptionNotice:
    """The clock of a process is the real one."""
    moment = Timestamp()
    moment.GetCurrentTime()
    moment.FromNanoseconds(moment.ToNanoseconds() + int(seconds * 1e9))
    return r.PreemptionNotice(by="reservations/r-9", revoke_time=moment)


def test_a_notice_is_told_and_acted_on_before_the_bytes_are_gone(daemon: FakeDaemon) -> None:
    up = threading.Event()
    told_then = seen(granted())

    def announce() -> None:
        up.wait(WAIT_SECONDS)
        told_then.reservation.preemption_notice.CopyFrom(notice(3.0))

    daemon.answers["WatchReservation"] = [seen(granted()), announce, told_then, FakeDaemon.HANG]
    daemon.answers["KeepAlive"] = [FakeDaemon.HANG]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        up.set()
        told = line_with(process.stderr, "ends in")
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    assert "for reservations/r-9; the command gets SIGTERM in" in told
    assert process.returncode == 7
    assert out == "SIGTERM\n"


def test_a_stderr_that_nobody_reads_ends_nothing(daemon: FakeDaemon) -> None:
    daemon.answers["KeepAlive"] = kept(state=r.RESERVATION_STATE_EXPIRED)
    options = ("run", "--vram", "4GiB", "--on-loss", "warn")
    with gpuctl_process(daemon, *options, *LISTEN) as process:
        assert process.stderr is not None
        process.stderr.close()
        line_with(process.stdout, "up")
        daemon.asked("GetReservation")  # it is about to tell of the loss
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 7
    assert released(daemon) == [NAME]


def test_a_notice_that_is_withdrawn(daemon: FakeDaemon) -> None:
    daemon.answers["WatchReservation"] = [
        seen(granted(preemption_notice=notice(600))), seen(granted()), FakeDaemon.HANG
    ]  # fmt: skip
    daemon.answers["KeepAlive"] = [FakeDaemon.HANG]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        line_with(process.stderr, "ends in")
        line_with(process.stderr, f"{NAME} stays")
        signalled(process, signal.SIGTERM)
    assert process.returncode == 7
