"""How a command ends when gpud refuses, is silent or is not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gpud.v1 import reservations_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

REFUSALS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", REFUSALS, ids=lambda code: code.name)
def test_a_refusal_exits_with_64_plus_its_code(
    code: grpc.StatusCode, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=code, message="cannot do it; do this instead", reason="SOME_REASON"
    )
    ended = gpuctl("reserve", "--vram", "4GiB")
    assert ended.code == 64 + code.value[0]
    assert ended.err == "gpuctl: cannot do it; do this instead\n"
    assert ended.out == ""


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_MISSING", 80),
        (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING", 71),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER", 71),
        (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_WITHDRAWN", 71),
    ],
)
def test_who_lacks_a_right_is_told_as_whom_gpuctl_came(
    code: grpc.StatusCode, reason: str, exit_code: int, daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    daemon.answers["Reserve"] = Refusal(code=code, message="cannot; ask", reason=reason)
    ended = gpuctl("reserve --vram 1G")
    assert ended.code == exit_code
    assert ended.err.splitlines() == [
        "gpuctl: cannot; ask",
        f"  gpuctl came without a token or a certificate, by {daemon.address}",
    ]


def test_a_bare_refusal_for_want_of_an_identity_tells_how_to_get_one(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    daemon.answers["Reserve"] = Refusal(code=grpc.StatusCode.UNAUTHENTICATED, message="no")
    ended = gpuctl("reserve --vram 1G")
    assert ended.code == 80
    assert "a certificate or a token (`gpuctl context add`)" in ended.err


def test_the_exit_codes_that_scripts_rely_on() -> None:
    assert 64 + grpc.StatusCode.INVALID_ARGUMENT.value[0] == 67
    assert 64 + grpc.StatusCode.NOT_FOUND.value[0] == 69
    assert 64 + grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] == 72
    assert 64 + grpc.StatusCode.UNAVAILABLE.value[0] == 78


def test_the_facts_of_a_refusal_are_told_with_v(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="cannot promise 40 GiB: gpu0: 1.25 GiB grantable of 6 GiB",
        reason="VRAM_INSUFFICIENT",
        metadata={"needed_bytes": "42949672960", "gpu0.grantable_bytes": "1342177280"},
    )
    ended = gpuctl("reserve", "--vram", "40GiB", "-v")
    assert ended.code == 72
    assert ended.err.splitlines() == [
        "gpuctl: cannot promise 40 GiB: gpu0: 1.25 GiB grantable of 6 GiB",
        "  code RESOURCE_EXHAUSTED reason VRAM_INSUFFICIENT (gpud)",
        "  gpu0.grantable_bytes = 1342177280",
        "  needed_bytes = 42949672960",
    ]


def test_a_bad_field_is_named(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        message="cannot accept the request",
        reason="OPTION_INVALID",
        violations={"ttl": "must be at most 7 days"},
    )
    ended = gpuctl("reserve", "--vram", "1G", "--ttl", "9d")
    assert ended.code == 67
    assert "  ttl: must be at most 7 days\n" in ended.err


def test_a_violation_that_the_message_tells_is_not_told_twice(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        message="cannot accept bytes: must be positive",
        reason="OPTION_INVALID",
        violations={"bytes": "must be positive"},
    )
    ended = gpuctl("reserve", "--vram", "0")
    assert ended.err == "gpuctl: cannot accept bytes: must be positive\n"


def test_a_bare_error_gets_a_next_step(gpuctl: Gpuctl) -> None:
    ended = gpuctl("estimate", "tiny")  # not scripted, so UNIMPLEMENTED
    assert ended.code == 76
    assert "`gpuctl version` compares" in ended.err


def test_what_engines_wrote_cannot_reach_the_terminal(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    daemon.answers["Reserve"] = Refusal(
        code=grpc.StatusCode.ABORTED,
        message="its last lines: \x1b[2J\x1b]0;owned\x07boom",
        reason="ENGINE_EXITED",
        metadata={"line": "\x1b[31mred"},
    )
    ended = gpuctl("-v", "reserve", "--vram", "1G")
    assert "\x1b" not in ended.err
    assert "boom" in ended.err


def test_no_daemon_says_where_and_how_to_start_one(gpuctl: Gpuctl, tmp_path: Path) -> None:
    missing = tmp_path / "none.sock"
    ended = gpuctl("--address", str(missing), "status")
    assert ended.code == 78
    assert f"cannot reach gpud at unix://{missing}: there is no such socket" in ended.err
    assert "gpud run" in ended.err
    assert "--address" in ended.err


@pytest.mark.parametrize("command", ["status", "events -f", "load tiny", "watch"])
def test_a_socket_without_a_daemon_is_told_at_once(
    command: str, gpuctl: Gpuctl, tmp_path: Path
) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    ended = gpuctl("--address", str(path), *command.split())
    assert ended.code == 78
    assert "nothing listens there" in ended.err


def test_a_closed_port_is_told_at_once(gpuctl: Gpuctl) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = gpuctl("--address", f"127.0.0.1:{port}", "devices")
    assert ended.code == 78
    assert f"cannot reach gpud at 127.0.0.1:{port}: nothing listens there" in ended.err


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[str]:
    """A socket that takes connections and never says a word."""
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield str(path)


@pytest.mark.parametrize("command", ["devices", "watch", "load tiny"])
def test_a_daemon_that_does_not_answer_ends_with_124(
    command: str, gpuctl: Gpuctl, mute: str
) -> None:
    ended = gpuctl("--address", mute, "--timeout", "100ms", *command.split())
    assert ended.code == 124
    assert "did not answer within 0.1 s" in ended.err


def test_a_lost_answer_tells_how_to_ask_again(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = [FakeDaemon.HANG]
    ended = gpuctl("reserve", "--vram", "1G", "--timeout", "2s")  # it must come to be asked
    assert ended.code == 124
    (request,) = daemon.requests["Reserve"]
    assert f"--request-id {request.request_id}" in ended.err


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:99999", ":1", "unix://", "h:p"])
def test_what_is_no_address(address: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl("--address", address, "devices")
    assert ended.code == 2
    assert "write unix:///" in ended.err


def test_forms_of_an_address(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    path = daemon.address.removeprefix("unix://")
    for address in (f"unix://{path}", f"unix:{path}", path):
        assert gpuctl("--address", address, "devices", "-o", "name").code == 0


def test_an_error_of_our_own_is_told_without_a_traceback(
    daemon: FakeDaemon, gpuctl: Gpuctl
) -> None:
    wrong = samples.reservation()
    wrong.create_time.seconds = 10**15  # no calendar has this moment
    daemon.answers["GetReservation"] = reservations_pb2.GetReservationResponse(reservation=wrong)
    ended = gpuctl("show", "reservations/r-4m2k")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert ended.err.startswith("gpuctl: ")
    assert "Traceback" in gpuctl("show", "reservations/r-4m2k", "-v").err


def test_an_argument_that_is_no_text(gpuctl: Gpuctl) -> None:
    ended = gpuctl("show", "\udcff")
    assert ended.code == 2
    assert "UTF-8" in ended.err


def test_a_connection_that_breaks_off_tells_how_to_ask_again(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["Reserve"] = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")
    ended = gpuctl("reserve --vram 1G")
    assert ended.code == 78
    assert "broke off" in ended.err
    assert f"--request-id {daemon.requests['Reserve'][0].request_id}" in ended.err
