"""What systemd is told: READY once, then a sign of life at every tick, STOPPING at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpud.notify import Notifier
from tests.running import Gpud


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(60)
        yield bound


def lines(notices: socket.socket) -> list[str]:
    return notices.recv(4096).decode().splitlines()


def test_a_message_is_one_datagram(notices: socket.socket) -> None:
    Notifier({"NOTIFY_SOCKET": notices.getsockname()}).tell("READY=1\nSTATUS=ready")
    assert lines(notices) == ["READY=1", "STATUS=ready"]


def test_an_abstract_socket_is_written_with_an_at() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0gpud-test-notify")
        bound.settimeout(60)
        Notifier({"NOTIFY_SOCKET": "@gpud-test-notify"}).tell("WATCHDOG=1")
        assert lines(bound) == ["WATCHDOG=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/one"}])
def test_nobody_listening_is_no_fault(environment: dict[str, str]) -> None:
    Notifier(environment).tell("READY=1")


def test_the_daemon_is_ready_once_then_alive_then_stopping(gpud: Callable[..., Gpud]) -> None:
    # A socket keeps ten unread ones: at this interval a slow host loses none.
    daemon = gpud(cards=1, interval="1s")
    with daemon.started() as notices:
        notices.settimeout(60)
        while "READY=1" not in (said := lines(notices)):
            pass
        assert "STATUS=ready" in said
        while lines(notices) != ["WATCHDOG=1"]:
            pass
        assert daemon.stop() == 0
        notices.settimeout(0.0)
        while (said := lines(notices)) != ["STOPPING=1"]:
            assert said == ["WATCHDOG=1"]


def test_a_daemon_that_cannot_sample_is_not_ready(gpud: Callable[..., Gpud]) -> None:
    """Its one card hangs: there is no READY before the deadline."""
    daemon = gpud(cards=1)
    scenario = daemon.directory / "scenario.json"
    daemon.devices = f'host = false\nscenario = "{scenario}"'
    scenario.write_text('{"gpu0": {"hang": true}}')
    with daemon.started() as notices:
        notices.settimeout(60)
        assert "READY=1" not in lines(notices)
        assert daemon.stop() == 0
