"""Which of the sockets beside one another is opened, and what is said where none may be."""

from __future__ import annotations

import grp
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpuctl.access.addresses import auth_socket, main_socket, usable


def test_names() -> None:
    assert auth_socket("/run/gpud/gpud.sock") == "/run/gpud/gpud.auth.sock"
    assert auth_socket("/run/gpud/gpud.viewer.sock") == "/run/gpud/gpud.auth.sock"
    assert main_socket("/run/gpud.d/gpud.operator.sock") == "/run/gpud.d/gpud.sock"
    assert main_socket("/run/gpud.d/gpud") == "/run/gpud.d/gpud"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user of this host can look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def listening(folder: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        for name in ("gpud.sock", "gpud.operator.sock", "gpud.viewer.sock"):
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(str(folder / name))
            made.listen()
        yield folder


# Imported by root, for another may not read where the code lies.
AS_NOBODY = """
import grp, os, sys
from gpuctl.access.addresses import usable
from gpuctl.access.context import Context
from gpuctl.access.trouble import find_trouble
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
main = sys.argv[2]
print(usable(main) if sys.argv[1] == "usable" else find_trouble(Context(address=f"unix://{main}")))
"""


def as_nobody(what: str, main: Path) -> str:
    """What is usable, or the trouble, to somebody who may open no more than everybody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    ended = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, what, str(main)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        ((0o666, 0o666, 0o666), "gpud.sock"),
        ((0o600, 0o666, 0o666), "gpud.operator.sock"),
        ((0o600, 0o660, 0o666), "gpud.viewer.sock"),
        ((0o600, 0o660, 0o660), "gpud.sock"),
    ],
)
def test_the_first_that_may_be_opened(
    modes: tuple[int, int, int], found: str, listening: Path
) -> None:
    for name, mode in zip(("", ".operator", ".viewer"), modes, strict=True):
        (listening / f"gpud{name}.sock").chmod(mode)
    assert as_nobody("usable", listening / "gpud.sock") == str(listening / found)


def test_no_socket_at_all_is_the_default_one(folder: Path) -> None:
    main = str(folder / "gpud.sock")
    assert usable(main) == main


def test_where_none_may_be_opened_all_are_told_and_the_group(listening: Path) -> None:
    for path in listening.iterdir():
        path.chmod(0o660)
    told = as_nobody("trouble", listening / "gpud.sock")
    for name in ("gpud.operator.sock", "gpud.viewer.sock"):
        assert f"nor {listening}/{name}" in told
    group = grp.getgrgid(os.getegid()).gr_name
    assert f"{listening}/gpud.operator.sock is for the group {group}" in told


def test_one_that_was_named_tells_of_another_that_may_be_opened(listening: Path) -> None:
    (listening / "gpud.sock").chmod(0o600)
    (listening / "gpud.operator.sock").chmod(0o660)
    (listening / "gpud.viewer.sock").chmod(0o666)
    told = as_nobody("trouble", listening / "gpud.sock")
    assert f"it may this: --address {listening}/gpud.viewer.sock" in told
