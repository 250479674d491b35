from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from gpuctl.leases.telling import Telling
from gpuctl.render import IN_ASCII, terminal_width
from tests.gpuctl import samples

COLUMNS = 50


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A terminal of 50 columns: the person's end, and the program's. stdout is none here."""
    person, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    with os.fdopen(program, "w") as stream:
        yield person, stream
    os.close(person)


def test_the_width_is_of_the_stream_that_is_written_to(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width(terminal[1]) == COLUMNS
    monkeypatch.setenv("COLUMNS", "130")
    assert terminal_width(terminal[1]) == 130


def test_what_ascii_lacks_is_told_as_wide_by_its_like() -> None:
    assert "91 °C … 2×→é│".encode("ascii", IN_ASCII) == b"91  C ~ 2x>??"


def test_what_is_no_terminal_is_80_wide(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    with (tmp_path_factory.mktemp("out") / "file").open("w") as stream:
        assert terminal_width(stream) == 80


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_the_queue_is_cut_to_the_terminal_that_stderr_is(
    kind: str, terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    person, stream = terminal
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr("sys.stderr", stream)
    Telling(now=lambda: float(samples.NOW)).queue(samples.queued(2))
    shown = os.read(person, 4096).decode().strip().removeprefix("\x1b[K")
    assert shown.startswith("r-4m2k waits, position 2: gpu0")
    assert shown.endswith("…")
    assert len(shown) == COLUMNS - 1
