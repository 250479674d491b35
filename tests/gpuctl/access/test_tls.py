"""Over TLS: what works, and in words what does not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from tests.fakes.daemon import FakeDaemon
from tests.gpuctl.access.certificates import COORDINATOR, HERE, Issued, issue, server_credentials
from tests.gpuctl.conftest import Ended, Gpuctl

Served = Callable[..., FakeDaemon]
EXPIRED = (-9, -2)


@pytest.fixture(scope="module")
def ca() -> Issued:
    return issue()


@pytest.fixture
def served(daemon: FakeDaemon) -> Iterator[Served]:
    """A daemon behind TLS that answers as `daemon` does."""
    with ExitStack() as stack:

        def serve(server: Issued, client_ca: Issued | None = None) -> FakeDaemon:
            made = stack.enter_context(FakeDaemon(None, server_credentials(server, client_ca)))
            made.answers.update(daemon.answers)
            return made

        yield serve


@pytest.fixture
def called(gpuctl: Gpuctl, tmp_path: Path) -> Callable[..., Ended]:
    """`devices` over a context of these files."""

    def call(address: str, ca: Issued, client: Issued | None = None, more: str = "") -> Ended:
        cert, key = client.write(tmp_path, "client") if client else (None, None)
        pair = f" --cert {cert} --key {key}" if client else ""
        ca_file, _ = ca.write(tmp_path, "ca")
        added = gpuctl(f"context add far --address {address} --ca {ca_file}{pair} {more}")
        assert added.code == 0, added.err
        return gpuctl("--context far devices -o name")

    return call


Called = Callable[..., Ended]


def test_a_certificate_lets_in_and_says_who_calls(
    ca: Issued, served: Served, called: Called, gpuctl: Gpuctl
) -> None:
    far = served(issue(HERE, by=ca), client_ca=ca)
    ended = called(far.address, ca, issue(COORDINATOR, by=ca))
    assert (ended.code, ended.err) == (0, "")
    assert far.authorization["ListDevices"] == [None]
    gpuctl("--context far cordon gpu0")
    assert far.requests["CordonDevice"][0].owner == ""


def test_a_token_over_tls(ca: Issued, served: Served, called: Called, tmp_path: Path) -> None:
    token = "gpud_" + "a" * 43
    (tmp_path / "token").write_text(f"{token}\n")
    far = served(issue(HERE, by=ca))
    assert called(far.address, ca, more=f"--token-file {tmp_path}/token").code == 0
    assert far.authorization["ListDevices"] == [f"Bearer {token}"]


def test_a_server_of_another_name(ca: Issued, served: Served, called: Called) -> None:
    far = served(issue(x509.DNSName("rig"), by=ca))
    ended = called(far.address, ca)
    assert ended.code == 78
    assert "the server's certificate is not for '127.0.0.1'" in ended.err
    assert "--server-name" in ended.err
    assert called(far.address, ca, more="--replace --server-name rig").code == 0
    again = called(far.address, ca, more="--replace --server-name rog")
    assert "the server's certificate is not for 'rog'" in again.err


@pytest.mark.parametrize(("days", "why"), [(EXPIRED, "has expired"), ((2, 9), "is not valid yet")])
def test_a_server_s_certificate_out_of_its_time(
    days: tuple[int, int], why: str, ca: Issued, served: Served, called: Called
) -> None:
    ended = called(served(issue(HERE, by=ca, days=days)).address, ca)
    assert ended.code == 78
    assert f"the server's certificate {why}" in ended.err
    assert "compare the clocks" in ended.err


def test_a_server_of_another_ca(ca: Issued, served: Served, called: Called) -> None:
    ended = called(served(issue(HERE, by=ca)).address, issue())
    assert ended.code == 78
    assert "the server's certificate is not of the CA in " in ended.err
    assert "--ca FILE" in ended.err


def test_no_certificate_where_one_is_wanted(ca: Issued, served: Served, called: Called) -> None:
    ended = called(served(issue(HERE, by=ca), client_ca=ca).address, ca)
    assert ended.code == 78
    assert "it may want a client certificate, and there is none" in ended.err
    assert "--cert FILE --key FILE" in ended.err


@pytest.mark.parametrize("state", ["of another CA", "expired"])
def test_a_certificate_that_is_not_taken(
    state: str, ca: Issued, served: Served, called: Called, tmp_path: Path
) -> None:
    far = served(issue(HERE, by=ca), client_ca=ca)
    is_expired = state == "expired"
    client = issue(COORDINATOR, by=ca, days=EXPIRED) if is_expired else issue(by=issue())
    ended = called(far.address, ca, client)
    assert ended.code == 78
    assert f"the server does not take the certificate in {tmp_path}/client.pem" in ended.err
    assert ("which expired on 20" in ended.err) is is_expired
    assert "ask an admin" in ended.err


def test_a_server_in_the_clear(ca: Issued, called: Called) -> None:
    with FakeDaemon(None) as plain:
        ended = called(plain.address, ca)
    assert ended.code == 78
    assert "the server there does not speak TLS" in ended.err


def test_tls_where_none_was_meant(ca: Issued, served: Served, gpuctl: Gpuctl) -> None:
    far = served(issue(HERE, by=ca), client_ca=ca)
    ended = gpuctl(f"--address {far.address} devices")
    assert ended.code == 78
    assert "the server there speaks TLS, and this address has no CA" in ended.err
    assert f"gpuctl context add NAME --address {far.address} --ca FILE" in ended.err


def test_nothing_listens(ca: Issued, called: Called) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = called(f"127.0.0.1:{port}", ca)
    assert ended.code == 78
    assert "nothing listens there" in ended.err
    assert "`gpuctl context show far`" in ended.err


@pytest.mark.parametrize("part", ["ca.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("what", ["gone", "garbage"])
def test_files_that_went_wrong_after_they_were_added(
    what: str, part: str, ca: Issued, served: Served, called: Called, gpuctl: Gpuctl,
    tmp_path: Path,
) -> None:  # fmt: skip
    far = served(issue(HERE, by=ca), client_ca=ca)
    assert called(far.address, ca, issue(COORDINATOR, by=ca)).code == 0
    if what == "gone":
        (tmp_path / part).unlink()
    else:
        (tmp_path / part).write_text("garbage")
    ended = gpuctl("--context far --timeout 5s devices")
    assert "Traceback" not in ended.err
    if what == "gone":
        assert ended.code == 2
        assert f"cannot read {tmp_path / part} of the context 'far': No such file" in ended.err
    else:
        assert ended.code == 78
        assert "the context's files cannot be used" in ended.err
        assert "`gpuctl context show far`" in ended.err


def test_a_server_that_says_nothing_ends_with_the_timeout(
    ca: Issued, gpuctl: Gpuctl, tmp_path: Path
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        gpuctl(f"context add far --address {address} --ca {ca.write(tmp_path, 'ca')[0]}")
        ended = gpuctl("--context far --timeout 100ms devices")
    assert ended.code == 124
    assert "did not answer within 0.1 s" in ended.err


def test_a_stream_over_tls_tells_as_well(
    ca: Issued, served: Served, called: Called, gpuctl: Gpuctl
) -> None:
    called(served(issue(HERE, by=ca, days=EXPIRED)).address, ca)
    ended = gpuctl("--context far watch")
    assert ended.code == 78
    assert "the server's certificate has expired" in ended.err
