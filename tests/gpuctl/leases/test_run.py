"""`gpuctl run`: the command, its environment, its signals and its end."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest

from gpuctl.failures import Failure
from gpuctl.leases.child import Child, ChildEnded
from gpuctl.leases.running import _stop_if_signalled
from gpuctl.leases.signals import Caught, Mask
from gpuctl.leases.streams import Inbox
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.leases.commands import LISTEN, released, shell
from tests.gpuctl.leases.conftest import NAME, granted, seen
from tests.gpuctl.leases.processes import gpuctl_process, line_with, signalled
from tests.gpuctl.test_terminal import PROGRAM, WAIT_SECONDS, environment


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_it_ends_as_the_command_does(
    script: str, code: int, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    ended = gpuctl("run", "--vram", "4GiB", *shell(script))
    assert (ended.code, ended.out, ended.err) == (code, "", "")
    assert released(daemon) == [NAME]


def test_the_command_has_the_environment_of_the_reservation(
    daemon: FakeDaemon,
) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=granted(environment={"MORE": "a b"}))
    script = 'echo "$CUDA_VISIBLE_DEVICES $GPUD_RESERVATION $MORE $ALREADY $$"'
    with gpuctl_process(daemon, "run", "--vram", "4G", *shell(script), ALREADY="there") as process:
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    (attached,) = daemon.requests["AttachProcess"]
    assert attached.name == NAME
    assert out == f"SIM-0000 r-4m2k a b there {attached.pid}\n"


def test_what_it_asks_for(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl(
        "run --vram 8GiB --exclusive --count 2 --ttl 60s --priority batch --label a=b "
        "--alternative 24GiB --ram 1GiB -- true"
    )
    (request,) = daemon.requests["Reserve"]
    assert request.bytes == 8 * samples.GIB
    assert request.device_count == 2
    assert request.sharing == r.SHARING_EXCLUSIVE
    assert request.ttl.seconds == 60
    assert request.max_wait.seconds == 600
    assert request.alternatives[0].bytes == 24 * samples.GIB
    assert "@" in request.owner


def test_without_a_wait_it_refuses_at_once(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="cannot promise",
        reason="VRAM_INSUFFICIENT",
    )
    assert gpuctl("run --vram 8GiB --wait 0 -- true").code == 72
    assert not daemon.requests["Reserve"][0].HasField("max_wait")
    assert "AttachProcess" not in daemon.requests


def test_it_waits_in_the_queue(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued(2))
    steps = iter([[seen(samples.queued(1)), seen(granted())], [seen(granted()), FakeDaemon.HANG]])
    daemon.answers["WatchReservation"] = lambda _: next(steps)
    ended = gpuctl("run", "--vram", "4GiB", *shell("exit 5"))
    assert ended.code == 5
    assert "position 2" in ended.err
    assert released(daemon) == [NAME]


@pytest.mark.parametrize("wait", ["0", "10m"])
def test_quiet_tells_nothing_of_the_wait(wait: str, gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued(2))
    steps = iter([[seen(granted())], [FakeDaemon.HANG]])
    daemon.answers["WatchReservation"] = lambda _: next(steps)
    assert gpuctl("run", "--quiet", "--vram", "4G", "--wait", wait, "--", "true").err == ""


def test_a_command_that_is_not_there_reserves_nothing(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("run --vram 4GiB -- no-such-program-here")
    assert ended.code == 127
    assert "no-such-program-here" in ended.err
    assert "Reserve" not in daemon.requests


@pytest.fixture
def plain_file(tmp_path: Path) -> Path:
    path = tmp_path / "plain"
    path.write_text("echo nothing")
    return path


def test_a_command_that_cannot_be_executed_reserves_nothing(
    gpuctl: Gpuctl, daemon: FakeDaemon, plain_file: Path, tmp_path: Path
) -> None:
    assert gpuctl("run", "--vram", "4GiB", "--", str(plain_file)).code == 126
    assert gpuctl("run", "--vram", "4GiB", "--", str(tmp_path)).code == 126
    assert "Reserve" not in daemon.requests


@pytest.mark.parametrize(
    ("text", "code"), [("#!/no/such/interpreter\n", 127), ("\x7fELFnothing", 126)]
)
def test_what_turns_out_to_be_no_program_is_released(
    text: str, code: int, gpuctl: Gpuctl, daemon: FakeDaemon, plain_file: Path
) -> None:
    plain_file.write_text(text)
    plain_file.chmod(stat.S_IRWXU)
    assert gpuctl("run", "--vram", "4GiB", "--", str(plain_file)).code == code
    assert released(daemon) == [NAME]


def test_it_runs_on_the_host_of_gpud_alone(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetNode"] = n.GetNodeResponse(node=samples.node())
    ended = gpuctl("run --vram 4GiB -- true")
    assert ended.code == 2
    assert "runs on rig" in ended.err
    assert "Reserve" not in daemon.requests


def test_over_tcp_its_pid_says_nothing_so_its_environment_alone_does(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    with FakeDaemon(None) as far:
        far.answers.update(daemon.answers)
        inside = shell('test "$GPUD_RESERVATION" = r-4m2k')
        ended = gpuctl("run", "--address", far.address, "--vram", "4GiB", *inside)
        assert (ended.code, ended.err) == (0, "")
        assert released(far) == [NAME]
        assert "AttachProcess" not in far.requests


def test_inside_a_reservation_that_stays(daemon: FakeDaemon, tmp_path: Path) -> None:
    os.mkfifo(kept := tmp_path / "kept")
    script = f'test "$GPUD_RESERVATION" = r-4m2k && read -r _ <{kept}'
    with gpuctl_process(daemon, "run", "--reservation", "r-4m2k", *shell(script)) as process:
        assert daemon.asked("KeepAlive")[0].name == NAME
        kept.write_text("it is\n")  # only now does the command end
        process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert daemon.requests["AttachProcess"][0].name == NAME
    assert "Reserve" not in daemon.requests
    assert "Release" not in daemon.requests


def test_inside_a_standing_reservation_nothing_is_renewed(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    held = granted(kind=r.RESERVATION_KIND_HELD, standing=True)
    daemon.answers["GetReservation"] = r.GetReservationResponse(reservation=held)
    daemon.answers["WatchReservation"] = [seen(held), FakeDaemon.HANG]
    assert gpuctl("run --reservation voice -- true").code == 0
    assert "KeepAlive" not in daemon.requests


def test_inside_one_that_is_not_granted_nothing_runs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetReservation"] = r.GetReservationResponse(reservation=samples.queued())
    ended = gpuctl("run --reservation r-4m2k -- true")
    assert ended.code == 73
    assert "it is QUEUED, not GRANTED" in ended.err


def test_the_attached_process_is_told_by_its_start_too(daemon: FakeDaemon) -> None:
    script = "sed 's/.*) //' /proc/$$/stat; read -r _"
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *shell(script)) as process:
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    (attached,) = daemon.requests["AttachProcess"]
    # The fields after the name begin with the third.
    assert attached.start_time == int(out.split()[22 - 3]) > 0


def test_a_command_that_has_ended_already_is_told_by_its_own_start() -> None:
    """Read later, it was that of whoever got its number."""
    inbox = Inbox()
    child = Child(["true"], {}, inbox, Mask(set()))
    assert inbox.get(timeout=WAIT_SECONDS) == ChildEnded(code=0)
    assert child.start_time is not None


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGQUIT, True), (signal.SIGWINCH, False)])
def test_a_signal_between_the_grant_and_the_start(number: signal.Signals, stops: bool) -> None:
    inbox = Inbox()
    inbox.put(Caught(number=number, by_terminal=False))
    with pytest.raises(Failure, match="before the command began") if stops else nullcontext():
        _stop_if_signalled(inbox, NAME)


def test_an_attach_that_is_refused_is_told_and_no_end(daemon: FakeDaemon) -> None:
    daemon.answers["AttachProcess"] = Refusal(
        code=grpc.StatusCode.PERMISSION_DENIED, message="cannot attach", reason="NOT_OWNER"
    )
    with gpuctl_process(daemon, "run", "--vram", "4G", *LISTEN) as process:
        line_with(process.stderr, "is not attached: cannot attach")
        line_with(process.stdout, "up")
        signalled(process, signal.SIGTERM)
    assert process.returncode == 7


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
               signal.SIGWINCH],
)  # fmt: skip
def test_signals_are_passed_on(number: signal.Signals, daemon: FakeDaemon) -> None:
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *LISTEN) as process:
        line_with(process.stdout, "up")
        process.send_signal(number)
        line_with(process.stdout, number.name)
        out, err = signalled(process, signal.SIGTERM)
    assert process.returncode == 7
    assert out == "SIGTERM\n"
    assert err == ""
    assert released(daemon) == [NAME]


def test_a_signal_before_there_is_an_answer_starts_nothing(daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = [FakeDaemon.HANG]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", "--", "echo", "began") as process:
        daemon.asked("Reserve")
        out, err = signalled(process, signal.SIGTERM)
    assert (process.returncode, out) == (143, "")
    assert "gave up before gpud answered; it may have been promised" in err


def test_a_signal_in_the_queue_starts_nothing_and_leaves_it(daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued(2))
    daemon.answers["WatchReservation"] = [FakeDaemon.HANG]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", "--", "echo", "began") as process:
        line_with(process.stderr, "position 2")
        out, err = signalled(process, signal.SIGINT)
    assert (process.returncode, out) == (130, "")
    assert f"{NAME} is released" in err
    assert released(daemon) == [NAME]


@pytest.mark.parametrize("number", [signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2])
def test_what_only_a_command_heeds_ends_no_wait(
    number: signal.Signals, daemon: FakeDaemon
) -> None:
    """Resizing the terminal gave up the queue."""
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued(2))
    daemon.answers["WatchReservation"] = [FakeDaemon.HANG]
    with gpuctl_process(daemon, "run", "--vram", "4GiB", "--", "echo", "began") as process:
        line_with(process.stderr, "position 2")
        process.send_signal(number)
        _, err = signalled(process, signal.SIGTERM)
    assert process.returncode == 143
    assert f"{NAME} is released" in err


def test_a_command_that_a_signal_ends(daemon: FakeDaemon) -> None:
    with gpuctl_process(
        daemon, "run", "--vram", "4G", *shell("echo up; exec sleep 60")
    ) as process:
        line_with(process.stdout, "up")
        signalled(process, signal.SIGTERM)
    assert process.returncode == 143
    assert released(daemon) == [NAME]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the person's, and the program's."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


# Makes its stdin the controlling terminal of the session that it was started in.
ON_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


def test_ctrl_c_reaches_the_command_once(daemon: FakeDaemon, terminal: tuple[int, int]) -> None:
    person, program = terminal
    command = [sys.executable, "-c", ON_TERMINAL, *PROGRAM[1:], "run", "--vram", "4GiB", *LISTEN]
    with subprocess.Popen(
        command,
        stdin=program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(daemon),
        start_new_session=True,
    ) as process:
        try:
            line_with(process.stdout, "up")
            os.write(person, b"\x03")
            line_with(process.stdout, "SIGINT")
            out, err = signalled(process, signal.SIGTERM)
        finally:
            process.kill()
    assert process.returncode == 7
    assert out == "SIGTERM\n"  # and no second SIGINT, which gpuctl got as well
    assert err == ""
    assert released(daemon) == [NAME]


def test_the_command_starts_with_the_mask_and_handlers_of_a_shell(daemon: FakeDaemon) -> None:
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status"
    with gpuctl_process(daemon, "run", "--vram", "4GiB", *shell(script)) as process:
        out, _ = process.communicate(timeout=WAIT_SECONDS)
    masks = dict(line.split(":\t") for line in out.splitlines())
    # Signals 32 and 33 are the C library's own: what is done with them comes from far above.
    own = 0b11 << 31
    assert int(masks["SigBlk"], 16) & ~own == 0
    assert int(masks["SigIgn"], 16) & ~own == 0


def test_a_pipe_goes_through_the_command(daemon: FakeDaemon) -> None:
    ended = subprocess.run(
        [*PROGRAM, "run", "--vram", "4GiB", "--", "tr", "a-z", "A-Z"],
        input="through\n",
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env=environment(daemon),
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "THROUGH\n", "")
