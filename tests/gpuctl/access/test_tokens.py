"""Tokens: minted unasked on a socket, read from a file, replaced when they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from gpuctl.access.context import Context
from gpuctl.access.tokens import Bearer, Taken
from gpuctl.client import Client
from gpuctl.failures import Failure
from gpud.v1 import node_pb2, reservations_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.access.auth_socket import AuthSocket
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.test_terminal import WAIT_SECONDS

UNKNOWN = Refusal(
    code=grpc.StatusCode.UNAUTHENTICATED,
    message="cannot tell who calls: the token is older than 5 minutes",
    reason="IDENTITY_MISSING",
)

TOKEN = "gpud_" + "a" * 43


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with closing(Client(Context(address=daemon.address), 10)) as made:
        yield made


def test_one_token_is_minted_for_all_calls_of_a_command(
    gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    assert gpuctl("status").code == 0
    assert auth.minted == 1
    for method in ("GetNode", "ListDevices", "ListInstances", "ListReservations"):
        assert daemon.authorization[method] == ["Bearer gpudu1.t1"]


def test_a_stream_brings_the_token_too(
    gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    daemon.answers["WatchEvents"] = [node_pb2.WatchEventsResponse(event=samples.event(10))]
    assert gpuctl("events -f").code == 0
    assert daemon.authorization["WatchEvents"] == ["Bearer gpudu1.t1"]


def test_without_an_auth_socket_none_is_sent(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    assert gpuctl("devices -o name").code == 0
    assert daemon.authorization["ListDevices"] == [None]


@pytest.mark.parametrize("name", ["gpud.operator.sock", "gpud.viewer.sock"])
def test_the_other_sockets_have_the_same_auth_socket(
    name: str, tmp_path: Path, auth: AuthSocket, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    with FakeDaemon(tmp_path / name) as other:
        other.answers.update(daemon.answers)
        assert gpuctl("--address", str(tmp_path / name), "status").code == 0
        assert other.authorization["GetNode"] == ["Bearer gpudu1.t1"]


def refusing_once(daemon: FakeDaemon, method: str) -> None:
    answer = daemon.answers[method]
    daemon.answers[method] = lambda _: UNKNOWN if len(daemon.requests[method]) == 1 else answer


def test_a_refused_token_is_minted_anew_once(
    gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    refusing_once(daemon, "ListDevices")
    assert gpuctl("devices -o name").code == 0
    assert daemon.authorization["ListDevices"] == ["Bearer gpudu1.t1", "Bearer gpudu1.t2"]


@pytest.mark.parametrize(
    ("method", "command"), [("ListDevices", "devices"), ("WatchSnapshots", "watch --count 1")]
)
def test_one_that_is_refused_again_ends_it(
    method: str, command: str, gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    daemon.answers[method] = UNKNOWN
    ended = gpuctl(command)
    assert ended.code == 80
    assert daemon.authorization[method] == ["Bearer gpudu1.t1", "Bearer gpudu1.t2"]
    assert f"gpuctl came as ada@rig, by {daemon.address}" in ended.err


def test_a_stream_is_opened_again_with_a_fresh_one(
    client: Client, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    kept = reservations_pb2.KeepAliveResponse(name="reservations/r-1")
    daemon.answers["KeepAlive"] = kept
    refusing_once(daemon, "KeepAlive")
    request = reservations_pb2.KeepAliveRequest(name="reservations/r-1")
    stream = client.converse(client.reservations.KeepAlive, lambda: [request])
    assert list(stream) == [kept]
    assert daemon.authorization["KeepAlive"] == ["Bearer gpudu1.t1", "Bearer gpudu1.t2"]
    assert len(daemon.requests["KeepAlive"]) == 2


def test_a_stream_that_was_cancelled_is_not_opened_again(
    client: Client, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    daemon.answers["WatchEvents"] = [FakeDaemon.HANG]
    stream = client.follow(client.node.WatchEvents, node_pb2.WatchEventsRequest())
    stream.cancel()
    with pytest.raises(Failure) as raised:
        list(stream)
    assert raised.value.code is grpc.StatusCode.CANCELLED


def test_a_stream_can_be_cancelled_by_another_thread(client: Client, daemon: FakeDaemon) -> None:
    daemon.answers["WatchEvents"] = [FakeDaemon.HANG]
    stream = client.follow(client.node.WatchEvents, node_pb2.WatchEventsRequest())
    failed: list[Failure] = []

    def read() -> None:
        try:
            list(stream)
        except Failure as failure:
            failed.append(failure)

    thread = threading.Thread(target=read)
    thread.start()
    assert daemon.hanging.wait(WAIT_SECONDS)
    stream.cancel()
    thread.join(WAIT_SECONDS)
    assert failed[0].code is grpc.StatusCode.CANCELLED


def test_an_auth_socket_that_went_away_is_waited_for(
    client: Client, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """To go on without a token would be to go on as nobody in particular."""
    daemon.answers["GetNode"] = UNKNOWN
    with AuthSocket(tmp_path / "gpud.auth.sock"):
        assert client.is_known
    with pytest.raises(Failure, match="the auth socket is gone") as raised:
        client.call(client.node.GetNode, node_pb2.GetNodeRequest())
    assert raised.value.exit_code == 78
    assert daemon.authorization["GetNode"] == ["Bearer gpudu1.t1"]


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"{}\n",
        b"[1]\n",
        b'{"token": "", "name": "a", "expires_in_seconds": 1}\n',
        b'{"token": "a\\nb", "name": "a", "expires_in_seconds": 1}\n',
        b'{"token": 1, "name": "a", "expires_in_seconds": 1}\n',
        b'{"token": "a", "name": "a", "expires_in_seconds": NaN}\n',
        b'{"token": "a", "name": "a", "expires_in_seconds": 0}\n',
        b"\xff" * 9000,
    ],
)
def test_an_auth_socket_that_talks_nonsense(
    line: bytes, gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    auth.line = line
    ended = gpuctl("devices")
    assert ended.code == 78
    assert "cannot tell gpud who calls" in ended.err
    assert "did not answer with a token" in ended.err
    assert not daemon.requests


def test_an_auth_socket_that_says_nothing(gpuctl: Gpuctl, auth: AuthSocket) -> None:
    auth.line = None
    ended = gpuctl("devices --timeout 50ms")
    assert ended.code == 78
    assert "did not answer within 0.05 s" in ended.err


class Source:
    """Gives numbered tokens, as long as it is told to."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count = 0
        self.gives: Callable[[], Taken | None] = self.next

    def next(self) -> Taken:
        self.count += 1
        return Taken(token=f"t{self.count}", says="as ada", seconds=self.seconds)

    def nothing(self) -> None:
        return None

    def trouble(self) -> None:
        raise Failure(message="trouble")


def test_a_token_is_replaced_before_it_ends() -> None:
    source, ticks = Source(seconds=300), [1000.0]
    bearer = Bearer(lambda: source.gives(), lambda: ticks[0])
    assert bearer.token() == "t1"
    ticks[0] += 239
    assert bearer.token() == "t1"
    ticks[0] += 2
    assert bearer.token() == "t2"


@pytest.mark.parametrize("problem", ["nothing", "trouble"])
def test_one_that_cannot_be_replaced_serves_to_its_end(problem: str) -> None:
    source, ticks = Source(seconds=300), [1000.0]
    bearer = Bearer(lambda: source.gives(), lambda: ticks[0])
    bearer.token()
    source.gives = getattr(source, problem)
    ticks[0] += 290
    assert bearer.token() == "t1"
    ticks[0] += 11
    with pytest.raises(Failure):
        bearer.token()
    source.gives = source.next
    assert bearer.token() == "t2"


def test_a_refused_one_is_replaced_once_for_all_who_brought_it() -> None:
    source, ticks = Source(seconds=300), [1000.0]
    bearer = Bearer(lambda: source.gives(), lambda: ticks[0])
    assert bearer.token() == "t1"
    assert bearer.renewed("t1")
    assert bearer.renewed("t1")
    assert (bearer.token(), source.count) == ("t2", 2)


def test_one_of_a_minter_that_is_gone_is_replaced_unasked() -> None:
    source, minter = Source(seconds=300), [(1, 1)]
    bearer = Bearer(lambda: source.gives(), lambda: 1000.0, lambda: minter[0] if minter else None)
    assert bearer.token() == "t1"
    minter.clear()  # gpud restarts: there is nobody to ask
    assert bearer.token() == "t1"
    minter.append((1, 2))
    assert (bearer.token(), bearer.token()) == ("t2", "t2")
    # Who does not answer is asked once, not at each call.
    minter[0], source.gives = (1, 3), source.trouble
    assert bearer.token() == "t2"
    source.gives = source.next
    assert bearer.token() == "t2"
    assert bearer.renewed("t2")
    assert bearer.token() == "t3"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_token_of_a_file_goes_before_the_auth_socket(
    gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket, token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(token_file))
    ended = gpuctl("devices -o name")
    assert (ended.code, ended.err) == (0, "")
    assert daemon.authorization["ListDevices"] == [f"Bearer {TOKEN}"]
    assert auth.minted == 0


def test_a_context_s_own_file_goes_before_the_variable(
    gpuctl: Gpuctl, daemon: FakeDaemon, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpuctl(f"context add rig --address {daemon.address} --token-file {token_file}")
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", "/nowhere")
    assert gpuctl("--context rig devices -o name").code == 0
    assert daemon.authorization["ListDevices"] == [f"Bearer {TOKEN}"]


def test_a_file_that_changed_is_read_again_once_refused(
    gpuctl: Gpuctl, daemon: FakeDaemon, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(token_file))
    answer = daemon.answers["ListDevices"]

    def refuses_the_old(_: object) -> object:
        if daemon.authorization["ListDevices"][-1] == f"Bearer {TOKEN}":
            token_file.write_text("gpud_def\n")
            return UNKNOWN
        return answer

    daemon.answers["ListDevices"] = refuses_the_old
    assert gpuctl("devices -o name").code == 0


def test_a_file_that_others_can_read_is_warned_of(
    gpuctl: Gpuctl, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file.chmod(0o644)
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(token_file))
    ended = gpuctl("status")
    assert ended.code == 0
    assert ended.err.count("warning: every user of this host can read the token") == 1
    assert TOKEN not in ended.err


@pytest.mark.parametrize("text", [b"", b"a b", b"\xff", b"a\x00b", b"x" * 5000])
def test_what_is_no_token(
    text: bytes, gpuctl: Gpuctl, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file.write_bytes(text)
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(token_file))
    ended = gpuctl("devices")
    assert ended.code == 2
    assert "must hold one token" in ended.err


def test_a_missing_file_is_told(gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", "/nowhere/token")
    ended = gpuctl("devices")
    assert ended.code == 2
    assert "cannot read /nowhere/token: No such file" in ended.err


def test_no_token_goes_out_in_the_clear(
    gpuctl: Gpuctl, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCTL_TOKEN_FILE", str(token_file))
    with FakeDaemon(None) as plain:
        ended = gpuctl(f"--address {plain.address} devices")
        assert not plain.requests
    assert ended.code == 2
    assert f"cannot send the token of {token_file} to {plain.address} in the clear" in ended.err
    assert TOKEN not in ended.err
