"""Who listens on a port, as the kernel shows it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.instances.instance import Instance, InstanceState
from gpud.instances.starting.listening import _ask_kernel, _read_table, is_shared, was_lost
from gpud.instances.starting.ports import LOOPBACK, port_again
from gpud.models.model import EngineKind, ModelOptions

PROGRAM = """\
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((LOOPBACK, 0))
        yield made


@pytest.fixture
def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@pytest.fixture
def other(port: int) -> Iterator[int]:
    """A process that listens there beside the test, which is its parent."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PROGRAM, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        process.kill()


def test_a_port_that_one_tree_has_alone_is_not_shared(
    listener: socket.socket, port: int, other: int
) -> None:
    listener.listen()
    assert not is_shared(port, os.getpid()), "the other is below us"


def test_a_port_beside_somebody_else_s_is_shared(
    listener: socket.socket, port: int, other: int
) -> None:
    listener.listen()
    assert is_shared(port, other)


def test_a_port_that_only_somebody_else_has_is_shared(listener: socket.socket, port: int) -> None:
    listener.listen()
    with subprocess.Popen(["sleep", "60"]) as process:
        assert is_shared(port, process.pid)
        process.kill()


def test_a_port_where_nobody_listens_is_nobody_s(port: int) -> None:
    assert not is_shared(port, os.getpid())


@pytest.mark.parametrize(
    "line",
    [
        "E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1",
        "OSError: [Errno 98] Address already in use",
        "Error: listen EADDRINUSE: address already in use 127.0.0.1:8000",
    ],
)
def test_an_engine_that_said_so_has_lost_its_port(line: str) -> None:
    assert was_lost(1, ("something else", line))


def test_an_engine_whose_port_is_taken_has_lost_it_whatever_it_said(
    listener: socket.socket, port: int
) -> None:
    assert was_lost(port, ())
    listener.close()
    assert not was_lost(port, ("it crashed",))


def test_the_kernel_and_its_table_tell_the_same(
    listener: socket.socket, port: int, other: int
) -> None:
    listener.listen()
    told = {f"socket:[{inode}]" for inode in _ask_kernel(port, socket.AF_INET)}
    assert len(told) == 2
    assert told == _read_table(port, Path("/proc"))
    assert not list(_ask_kernel(port, socket.AF_INET6))


def stopped(port: int | None) -> Instance:
    """One that waits to be started again."""
    return Instance(
        id="tiny-1",
        model="tiny",
        engine=EngineKind.LLAMA_CPP,
        owner="anna",
        state=InstanceState.BACKOFF,
        options=ModelOptions(),
        create_wall=0.0,
        port=port,
    )


def test_an_engine_that_is_started_again_gets_the_port_that_it_had(
    listener: socket.socket, port: int
) -> None:
    before = stopped(port)
    listener.listen()
    assert port_again(before, [before]) != port, "somebody else has it by now"
    listener.close()
    assert port_again(before, [before]) == port
    # Another instance was given it meanwhile, and does not listen yet.
    assert port_again(before, [before, replace(before, id="tiny-2")]) != port
    gone = replace(before, id="tiny-2", state=InstanceState.STOPPED)
    assert port_again(before, [before, gone]) == port
    assert port_again(stopped(None), []) > 0
