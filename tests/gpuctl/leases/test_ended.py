"""A command that gpud ended says why; one that ended otherwise does not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from gpuctl.leases import ended as asking
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.leases.conftest import NAME, granted, seen
from tests.gpuctl.leases.processes import gpuctl_process, line_with, signalled
from tests.gpuctl.leases.test_run import LISTEN, shell
from tests.gpuctl.test_terminal import WAIT_SECONDS

WHY = "SIGTERM to 623: it holds 700 MiB of gpu0, promised are 256 MiB"
RUN = ("run", "--quiet", "--vram", "4G")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow a host is, the journal answers in time."""
    monkeypatch.setattr(asking, "_LIMIT_SECONDS", WAIT_SECONDS)


def told(*, pid: int = 623, subject: str = "devices/SIM-0000", **details: str) -> n.Event:
    return n.Event(
        sequence=12,
        time=samples.moment(12),
        type="process.terminated",
        subject=subject,
        actor="gpud",
        reason=WHY,
        details={"pid": str(pid), **details},
    )


def script(daemon: FakeDaemon, *, looks_in_vain: int = 0, **event: str) -> None:
    """The journal, where the event stands after so many looks; by default of the attached pid."""

    def answer(_: n.ListEventsRequest) -> n.ListEventsResponse:
        if len(daemon.requests["ListEvents"]) <= looks_in_vain:
            return n.ListEventsResponse(events=[samples.event(9)])
        pid = 623 if event else daemon.requests["AttachProcess"][0].pid
        return n.ListEventsResponse(events=[samples.event(13), told(pid=pid, **event)])

    daemon.answers["ListEvents"] = answer


@pytest.mark.parametrize(("number", "code"), [("TERM", 143), ("KILL", 137)])
def test_a_command_that_gpud_ended_says_why(
    number: str, code: int, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    # It lives until it is attached: only then does the journal of this test know its pid.
    daemon.answers["AttachProcess"] = lambda request: _ended(request, f"SIG{number}")
    script(daemon)
    ended = gpuctl(*RUN, "--", "sleep", "60")
    assert (ended.code, ended.err) == (code, f"gpuctl: gpud ended it: {WHY}\n")
    request = daemon.requests["ListEvents"][0]
    assert request.type == "process.terminated"
    assert request.since == samples.moment()  # when it began


def _ended(request: r.AttachProcessRequest, name: str) -> r.AttachProcessResponse:
    os.kill(request.pid, signal.Signals[name])
    return r.AttachProcessResponse(reservation=granted())


@pytest.mark.parametrize(
    "event", [{"subject": NAME}, {"reservation": NAME}], ids=["overuse", "trespass"]
)
def test_a_process_below_the_command_is_found_by_its_reservation(
    event: dict[str, str], gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    script(daemon, **event)
    ended = gpuctl(*RUN, *shell("exit 143"))  # as a shell tells of what it ran
    assert (ended.code, ended.err) == (143, f"gpuctl: gpud ended a process of {NAME}: {WHY}\n")


def test_an_event_that_is_written_after_the_signal_is_waited_for(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    script(daemon, looks_in_vain=2, subject=NAME)
    assert WHY in gpuctl(*RUN, *shell("kill -TERM $$")).err


def test_another_one_s_end_is_not_this_one_s(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    script(daemon, subject="reservations/r-other")
    ended = gpuctl(*RUN, *shell("kill -TERM $$"))
    assert (ended.code, ended.err) == (143, "")


@pytest.mark.parametrize("command", ["exit 0", "exit 1", "kill -SEGV $$"])
def test_other_ends_are_not_asked_about(command: str, gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl(*RUN, *shell(command))
    assert "ListEvents" not in daemon.requests


def test_a_signal_that_was_passed_on_is_not_asked_about(daemon: FakeDaemon) -> None:
    with gpuctl_process(daemon, *RUN, *shell("echo up; exec sleep 60")) as process:
        line_with(process.stdout, "up")
        signalled(process, signal.SIGTERM)
    assert process.returncode == 143
    assert "ListEvents" not in daemon.requests


def test_a_journal_that_does_not_answer_holds_nothing_up(
    gpuctl: Gpuctl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_LIMIT_SECONDS", 0.5)
    answered = threading.Event()
    daemon.answers["ListEvents"] = [answered.wait, n.ListEventsResponse()]
    try:
        # No answer comes before the command has ended.
        assert gpuctl(*RUN, *shell("kill -TERM $$")).code == 143
    finally:
        answered.set()


def test_a_device_that_is_lost_under_the_command_is_told_and_when_it_is_well(
    daemon: FakeDaemon,
) -> None:
    up = threading.Event()
    ailing = seen(granted(state_reason="gpu1 is lost: Xid 79"))
    daemon.answers["WatchReservation"] = [
        seen(granted()), lambda: up.wait(WAIT_SECONDS), ailing, ailing, seen(granted()),
        FakeDaemon.HANG,
    ]  # fmt: skip
    with gpuctl_process(daemon, *RUN, *LISTEN) as process:
        line_with(process.stdout, "up")
        up.set()
        assert process.stderr is not None
        assert process.stderr.readline() == (
            f"gpuctl: {NAME}: gpu1 is lost: Xid 79; the command goes on\n"
        )
        assert process.stderr.readline() == f"gpuctl: {NAME}: its devices are well again\n"
        _, err = signalled(process, signal.SIGTERM)
    assert (process.returncode, err) == (7, "")
