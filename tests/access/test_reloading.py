"""New certificates, bad ones, and the denied: seen without a restart, over real connections."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import structlog
from cryptography import x509

from gpud.access.authority.issuing import Issued, new_authority
from gpud.access.certificates import fingerprint_of
from gpud.access.reloading import DenyList, ServerCertificates
from gpud.errors import ConfigInvalid
from gpud.settings import Tls
from tests.access.paper import DAY, NOW, Office
from tests.fakes.clock import FakeClock

METHOD = "/test.Echo/Echo"
KNOWN = frozenset({"ci"})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=NOW)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path).serve()


@pytest.fixture
def certificates(office: Office, clock: FakeClock) -> ServerCertificates:
    return ServerCertificates(office.tls, clock)


def print_of(issued: Issued) -> str:
    return fingerprint_of(x509.load_pem_x509_certificate(issued.certificate))


# What is told.


def test_the_same_files_are_nothing_new(office: Office, certificates: ServerCertificates) -> None:
    assert certificates.look() == []
    os.utime(office.path("certificate"))
    assert certificates.look() == []
    assert certificates.state.reload_count == 0


def test_a_new_pair_is_told_once(office: Office, certificates: ServerCertificates) -> None:
    old = certificates.state.fingerprint
    issued = office.server("gpu2")
    office.serve(issued)
    (event,) = certificates.look()
    assert (event.type, event.subject, event.wall) == ("tls.reloaded", "node", NOW)
    assert str(office.path("certificate")) in event.reason
    assert "CN=gpu2" in event.reason
    assert certificates.look() == []
    state = certificates.state
    assert (state.reload_count, state.refused_count, state.last_error) == (1, 0, "")
    assert state.fingerprint == print_of(issued) != old


def test_a_bad_pair_is_told_once_and_the_old_one_stays(
    office: Office, certificates: ServerCertificates, clock: FakeClock
) -> None:
    before = certificates.pair
    office.write("key", office.server().key)
    clock.advance(5)
    (event,) = certificates.look()
    assert event.type == "tls.refused"
    assert str(office.path("key")) in event.reason
    assert "does not belong" in event.reason
    assert "goes on serving" in event.reason
    assert certificates.look() == []
    state = certificates.state
    assert (state.reload_count, state.refused_count) == (0, 1)
    assert "does not belong" in state.last_error
    assert state.last_error_wall == NOW + 5
    assert certificates.pair is before
    office.path("key").unlink()  # another change, another word
    (event,) = certificates.look()
    assert "no such file" in event.reason
    assert certificates.state.refused_count == 2


def test_what_was_refused_for_its_mode_is_taken_after_a_chmod(
    office: Office, certificates: ServerCertificates
) -> None:
    issued = office.server("gpu2")
    office.serve(issued)
    office.path("key").chmod(0o644)
    assert [event.type for event in certificates.look()] == ["tls.refused"]
    office.path("key").chmod(0o600)
    assert [event.type for event in certificates.look()] == ["tls.reloaded"]
    assert certificates.state.last_error == ""
    assert certificates.state.last_error_wall is None


def test_a_bug_refuses_a_pair_and_the_old_one_stays(
    office: Office, certificates: ServerCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = certificates.pair
    office.serve(office.server("gpu2"))
    with monkeypatch.context() as patched:
        for name in ("read_pair", "grpc.ssl_server_certificate_configuration"):
            patched.setattr(f"gpud.access.reloading.{name}", failing)
            os.utime(office.path("key"))
            with structlog.testing.capture_logs() as logs:
                (event,) = certificates.look()
                assert certificates.look() == []
            assert [each["event"] for each in logs] == ["tls.bug"]
            assert event.type == "tls.refused"
            assert f"{office.path('certificate')}: OverflowError('too far')" in event.reason
            assert certificates.pair is before
            assert certificates.state.last_error
            patched.undo()
    assert certificates.state.refused_count == 2
    assert [event.type for event in certificates.look()] == ["tls.reloaded"]


def failing(*_: object, **__: object) -> None:
    raise OverflowError("too far")


def test_a_key_that_others_may_read_is_noticed(
    office: Office, certificates: ServerCertificates
) -> None:
    office.path("key").chmod(0o644)
    (event,) = certificates.look()
    assert "others may read it" in event.reason


def test_a_pair_of_tomorrow_is_taken_tomorrow(
    office: Office, certificates: ServerCertificates, clock: FakeClock
) -> None:
    """Its files do not change again."""
    office.serve(office.server(now=NOW + DAY))
    assert [event.type for event in certificates.look()] == ["tls.refused"]
    assert certificates.look() == []
    clock.advance(DAY)
    assert [event.type for event in certificates.look()] == ["tls.reloaded"]


def test_the_old_files_put_back_end_the_complaint(
    office: Office, certificates: ServerCertificates
) -> None:
    good = office.path("certificate").read_bytes()
    office.write("certificate", b"half a file")
    assert [event.type for event in certificates.look()] == ["tls.refused"]
    office.write("certificate", good)
    assert [event.type for event in certificates.look()] == ["tls.reloaded"]
    assert certificates.look() == []
    assert certificates.state.last_error == ""


def test_the_first_pair_must_be_good(office: Office, clock: FakeClock) -> None:
    office.write("certificate", b"")
    with pytest.raises(ConfigInvalid, match="holds no PEM certificate"):
        ServerCertificates(office.tls, clock)


# Over real connections.


async def echo(request: bytes, context: object) -> bytes:
    return request


@contextlib.asynccontextmanager
async def serving(certificates: ServerCertificates) -> AsyncIterator[int]:
    """A real server behind them; its port."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", certificates.credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def calling(
    port: int, ca: bytes, client: Issued | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(
        ca, client.key if client else None, client.certificate if client else None
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
        yield channel


async def answered(channel: grpc.aio.Channel) -> bool:
    """Whether a call is answered, rather than the connection refused."""
    try:
        return bool(await channel.unary_unary(METHOD)(b"hello", timeout=60) == b"hello")
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 -- both ways are good
        return False


async def get_in(port: int, office: Office, client: Issued | None) -> bool:
    async with calling(port, office.ca, client) as channel:
        return await answered(channel)


def shown_to(
    port: int, version: ssl.TLSVersion | None = None, client: tuple[Path, Path] | None = None
) -> tuple[str, str]:
    """The fingerprint of the certificate that a new connection is shown, and the TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if client is not None:
        context.load_cert_chain(*client)
    if version is not None:
        # Else OpenSSL refuses the old ones by itself, and nothing would be seen of the server.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der
        return fingerprint_of(x509.load_der_x509_certificate(der)), connection.version() or ""


async def test_new_connections_get_the_new_pair_and_old_ones_stay(
    office: Office, certificates: ServerCertificates
) -> None:
    async with (
        serving(certificates) as port,
        calling(port, office.ca, office.client()) as old_channel,
    ):
        assert await answered(old_channel)
        assert shown_to(port)[0] == certificates.state.fingerprint
        for _ in range(3):
            issued = office.server()
            office.serve(issued)
            certificates.look()
            assert shown_to(port)[0] == print_of(issued)
            assert shown_to(port)[0] == print_of(issued)
        assert await answered(old_channel)


async def test_a_bad_pair_leaves_the_old_one_serving(
    office: Office, certificates: ServerCertificates
) -> None:
    async with serving(certificates) as port:
        good = certificates.state.fingerprint
        for name, data in (("key", office.server().key), ("client_ca", b""), ("certificate", b"")):
            office.write(name, data)
            assert [event.type for event in certificates.look()] == ["tls.refused"]
            assert shown_to(port)[0] == good
            assert await get_in(port, office, office.client())


async def test_each_listener_gets_the_new_pair(
    office: Office, certificates: ServerCertificates
) -> None:
    async with serving(certificates) as one, serving(certificates) as other:
        shown_to(one)
        issued = office.server()
        office.serve(issued)
        certificates.look()
        assert shown_to(one)[0] == shown_to(other)[0] == print_of(issued)


async def test_a_new_ca_for_clients(office: Office, certificates: ServerCertificates) -> None:
    stranger = Office(office.folder, authority=new_authority(NOW))
    async with serving(certificates) as port:
        assert await get_in(port, office, office.client())
        assert not await get_in(port, office, stranger.client())
        office.write("client_ca", office.ca + stranger.ca)
        certificates.look()
        assert await get_in(port, office, stranger.client())
        office.write("client_ca", stranger.ca)
        certificates.look()
        assert not await get_in(port, office, office.client())


async def test_clients_that_the_handshake_refuses(office: Office, clock: FakeClock) -> None:
    office.authority = new_authority(NOW - 900 * DAY)
    certificates = ServerCertificates(office.serve().tls, clock)
    expired = office.client(now=NOW - 826 * DAY)
    async with serving(certificates) as port:
        assert await get_in(port, office, office.client())
        assert not await get_in(port, office, None)
        assert not await get_in(port, office, expired)
        assert not await get_in(port, office, office.server())  # for servers only


async def test_without_a_client_ca_nobody_needs_one(office: Office, clock: FakeClock) -> None:
    tls = Tls(certificate=str(office.path("certificate")), key=str(office.path("key")))
    async with serving(ServerCertificates(tls, clock)) as port:
        assert await get_in(port, office, None)


async def test_versions_of_tls(office: Office, certificates: ServerCertificates) -> None:
    issued = office.client()
    office.write("own", issued.certificate)
    office.write("own-key", issued.key)
    client = office.path("own"), office.path("own-key")
    async with serving(certificates) as port:
        assert shown_to(port, None, client)[1] == "TLSv1.3"
        assert shown_to(port, ssl.TLSVersion.TLSv1_2, client)[1] == "TLSv1.2"
        for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            # The server hangs up. Refused by OpenSSL on our side it would be another error.
            with pytest.raises((ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                shown_to(port, old, client)


# The denied.


def test_the_denied_are_read_again(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "denied"
    path.write_text("")
    known = DenyList(str(path), clock, KNOWN)
    first = known.denied
    assert known.look() == []
    path.write_text("anna@host\n")
    (event,) = known.look()
    assert (event.type, event.subject) == ("access.denied_changed", "node")
    assert event.reason == f"{path}: 1 entry is refused from now on"
    assert known.denied is not first
    assert known.denied.covers(("anna@host",), "", "")
    assert known.look() == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "no such file"),
        (b"a b\n", ":1: "),
        (b"a\n0x1234\n", ":2: '0x1234' is no kind of entry"),
        (b"a\n\xff\n", ":2: is not UTF-8"),
        (b"#" * 1_048_577, "larger than 1048576 bytes"),
    ],
)
def test_a_list_that_is_no_good_denies_whom_it_did(
    tmp_path: Path, clock: FakeClock, data: bytes | None, told: str
) -> None:
    path = tmp_path / "denied"
    path.write_text("anna@host\n")
    known = DenyList(str(path), clock, KNOWN)
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    (event,) = known.look()
    assert event.type == "access.denied_refused"
    assert str(path) in event.reason
    assert told in event.reason
    assert told in known.last_error
    assert known.look() == []
    assert known.denied.covers(("anna@host",), "", "")
    path.write_text("anna@host\n")
    assert [event.type for event in known.look()] == ["access.denied_changed"]
    assert known.last_error == ""


def test_a_list_must_be_good_at_the_start(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigInvalid, match=r"access\.denied .*denied: no such file"):
        DenyList(str(tmp_path / "denied"), clock, KNOWN)


def test_a_name_that_may_be_nobodys_is_told(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "denied"
    path.write_text("anna\n")
    with structlog.testing.capture_logs() as logs:
        known = DenyList(str(path), clock, KNOWN)
        assert "'anna' is in neither" in logs.pop()["reason"]
        path.write_text("ci\nanna@host\n1a2b3c\n")
        (event,) = known.look()
        reason = logs.pop()["reason"]
        assert reason.startswith("'1a2b3c' is in neither")
        assert event.reason == f"{path}: 3 entries are refused from now on; {reason}"
        path.write_text("ci\n")
        known.look()
    assert logs == []


def test_no_list_denies_nobody(clock: FakeClock) -> None:
    nobody = DenyList("", clock, KNOWN)
    assert nobody.look() == []
    assert not nobody.denied.covers(("anna@host",), "", "")
