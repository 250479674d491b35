"""--all-nodes: one command on every context at once."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import yaml

from gpud.v1 import devices_pb2, instances_pb2, node_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]
READS = [
    "status", "devices", "reservations", "instances", "ps", "models", "events", "show gpu0"
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where addresses are as short in each run: a folder that the test stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fleet(
    daemon: FakeDaemon, home: Path, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[FakeDaemon]]:
    """Two nodes, rig and rog, of which the second has one card."""
    monkeypatch.delenv("GPUCTL_ADDRESS")
    daemon.answers["GetDevice"] = devices_pb2.GetDeviceResponse(device=samples.card())
    with FakeDaemon(home / "rog.sock") as second:
        second.answers.update(daemon.answers)
        second.answers.update(
            GetNode=node_pb2.GetNodeResponse(node=samples.node(hostname="rog")),
            ListDevices=devices_pb2.ListDevicesResponse(devices=[samples.card()]),
        )
        gpuctl(f"context add rig --address {daemon.address}")
        gpuctl(f"context add rog --address {second.address}")
        yield [daemon, second]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("command", ["devices", "reservations", "instances", "events"])
def test_one_table_with_the_node_first(
    command: str, fleet: list[FakeDaemon], gpuctl: Gpuctl, golden: Golden
) -> None:
    ended = gpuctl(f"{command} --all-nodes")
    assert (ended.code, ended.err) == (0, "")
    golden(f"all_nodes_{command}", ended.out)
    assert ended.out.startswith("NODE ")


@pytest.mark.usefixtures("terminal")
def test_a_table_of_devices_fits_80_columns(fleet: list[FakeDaemon], gpuctl: Gpuctl) -> None:
    assert max(map(len, gpuctl("devices --all-nodes").out.splitlines())) <= 80
    assert max(map(len, gpuctl("devices --all-nodes -o wide").out.splitlines())) > 80


@pytest.mark.usefixtures("terminal")
def test_what_is_no_table_stands_under_its_node(
    fleet: list[FakeDaemon], gpuctl: Gpuctl, home: Path, golden: Golden
) -> None:
    ended = gpuctl("status --all-nodes")
    assert (ended.code, ended.err) == (0, "")
    golden("all_nodes_status", ended.out.replace(str(home), "/run"))


@pytest.mark.parametrize("command", READS)
@pytest.mark.parametrize("form", ["json", "yaml", "jsonl"])
def test_every_read_has_each_node_s_answer(
    form: str, command: str, fleet: list[FakeDaemon], gpuctl: Gpuctl
) -> None:
    alone = json.loads(gpuctl(f"--context rog {command} -o json").out)
    ended = gpuctl(f"{command} --all-nodes -o {form}")
    assert (ended.code, ended.err) == (0, "")
    if form == "jsonl":
        nodes = [json.loads(line) for line in ended.out.splitlines()]
    else:
        nodes = (json.loads if form == "json" else yaml.safe_load)(ended.out)["nodes"]
    assert [node["node"] for node in nodes] == ["rig", "rog"]
    assert nodes[1] == {"node": "rog", "address": fleet[1].address, "answer": alone}


@pytest.mark.parametrize("command", READS)
def test_every_read_shows_both(command: str, fleet: list[FakeDaemon], gpuctl: Gpuctl) -> None:
    ended = gpuctl(f"{command} --all-nodes")
    assert (ended.code, ended.err) == (0, "")
    assert "rig" in ended.out
    assert "rog" in ended.out


def test_nothing_anywhere_is_told_once(fleet: list[FakeDaemon], gpuctl: Gpuctl) -> None:
    for each in fleet:
        each.answers["ListInstances"] = instances_pb2.ListInstancesResponse()
    ended = gpuctl("instances --all-nodes")
    assert (ended.code, ended.out, ended.err) == (0, "", "no instances\n")


def test_nothing_on_one_leaves_the_other(fleet: list[FakeDaemon], gpuctl: Gpuctl) -> None:
    fleet[0].answers["ListInstances"] = instances_pb2.ListInstancesResponse()
    ended = gpuctl("instances --all-nodes")
    assert ended.err == ""
    assert [line.split()[0] for line in ended.out.splitlines()] == ["NODE", "rog"]


def test_devices_have_the_short_names_of_their_own_node(
    fleet: list[FakeDaemon], gpuctl: Gpuctl
) -> None:
    renamed = samples.card()
    renamed.alias = "left"
    fleet[1].answers["ListDevices"] = devices_pb2.ListDevicesResponse(devices=[renamed])
    lines = gpuctl("reservations --all-nodes").out.splitlines()
    assert "gpu0:" in lines[1]
    assert "left:" in lines[2]


def test_the_others_are_shown_and_the_first_that_failed_gives_the_code(
    fleet: list[FakeDaemon], gpuctl: Gpuctl
) -> None:
    gpuctl("context add gone --address /nowhere.sock")
    fleet[0].answers["ListDevices"] = Refusal(
        code=grpc.StatusCode.PERMISSION_DENIED, message="cannot list; ask", reason="ROLE_MISSING"
    )
    ended = gpuctl("devices --all-nodes")
    assert ended.code == 71
    assert [line.split()[0] for line in ended.out.splitlines()] == ["NODE", "rog"]
    assert "gpuctl: rig: cannot list; ask\n" in ended.err
    assert "by the context rig, unix://" in ended.err
    assert "gpuctl: gone: cannot reach gpud at unix:///nowhere.sock" in ended.err
    nodes = json.loads(gpuctl("devices --all-nodes -o json").out)["nodes"]
    assert nodes[0]["error"] == {
        "code": "PERMISSION_DENIED", "reason": "ROLE_MISSING", "message": "cannot list; ask"
    }  # fmt: skip
    assert nodes[2]["error"]["code"] == "UNAVAILABLE"


def test_an_error_of_our_own_on_one_node_keeps_no_other(
    fleet: list[FakeDaemon], gpuctl: Gpuctl
) -> None:
    wrong = samples.card()
    wrong.sample.time.seconds = 10**15  # no calendar has this moment
    fleet[0].answers["GetDevice"] = devices_pb2.GetDeviceResponse(device=wrong)
    ended = gpuctl("show devices/x --all-nodes")
    assert ended.code == 1
    assert "gpuctl: rig: " in ended.err
    assert "== rog" in ended.out


def test_nodes_are_asked_at_once(fleet: list[FakeDaemon], gpuctl: Gpuctl) -> None:
    """Each answers only when the other has been asked, so none waits for another's end."""
    both = threading.Barrier(2, timeout=60)
    for each in fleet:
        answer = each.answers["ListDevices"]
        each.answers["ListDevices"] = [both.wait, answer]
    assert gpuctl("devices --all-nodes --timeout 60s").code == 0


def test_dead_nodes_cost_their_timeout_together(
    fleet: list[FakeDaemon], gpuctl: Gpuctl, home: Path
) -> None:
    """Each of them connects to a node that then waits for all others to be connected to."""
    count = 8
    arrived = threading.Barrier(count, timeout=60)

    def wait_for_all(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        arrived.wait()
        connection.close()
        listener.close()

    threads = []
    with ExitStack() as stack:
        for index in range(count):
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(str(home / f"dead{index}.sock"))
            made.listen()
            thread = threading.Thread(target=wait_for_all, args=(made,))
            thread.start()
            threads.append(thread)
            gpuctl(f"context add dead{index} --address ./dead{index}.sock")
        ended = gpuctl("devices --all-nodes --timeout 60s")
        for thread in threads:
            thread.join(60)
    assert not arrived.broken
    assert ended.code == 78
    assert [line.split()[0] for line in ended.out.splitlines()].count("rog") == 1
    assert all(f"gpuctl: dead{index}: " in ended.err for index in range(count))


def test_a_note_that_nodes_share_is_told_once(gpuctl: Gpuctl, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    folder.mkdir()
    os.environ.pop("GPUCTL_ADDRESS", None)
    with ExitStack() as stack:
        for name in ("a", "b"):
            mute = stack.enter_context(socket.socket(socket.AF_UNIX))
            mute.bind(str(folder / f"{name}.sock"))
            mute.listen()
            gpuctl(f"context add {name} --address {folder}/{name}.sock")
        ended = gpuctl("devices --all-nodes --timeout 100ms")
    assert ended.code == 124
    assert ended.err.count("did not answer within 0.1 s") == 2
    assert ended.err.count("wait longer with --timeout") == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--address h:1 devices --all-nodes", "leave out --address"),
        ("devices --context rig --all-nodes", "leave out --address and --context"),
        ("devices --all-nodes -o name", "names are those of one node"),
        ("events -f --all-nodes", "--follow"),
        ("reserve --vram 1G --all-nodes", "--all-nodes"),
        ("watch --all-nodes", "--all-nodes"),
        ("--all-nodes devices", "--all-nodes"),
    ],
)
def test_wrong_command_lines(
    arguments: str, why: str, fleet: list[FakeDaemon], gpuctl: Gpuctl
) -> None:
    ended = gpuctl(arguments)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert not any(each.requests for each in fleet)


def test_without_contexts_it_says_how_to_add_one(gpuctl: Gpuctl) -> None:
    ended = gpuctl("devices --all-nodes")
    assert ended.code == 2
    assert "gpuctl context add NAME --address" in ended.err


def test_a_variable_s_token_goes_to_no_node_of_the_file(
    fleet: list[FakeDaemon], gpuctl: Gpuctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text("gpud_abc\n")
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(home / "token"))
    gpuctl("devices --all-nodes")
    assert [each.authorization["ListDevices"] for each in fleet] == [[None], [None]]
