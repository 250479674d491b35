"""Certificates that are refused at the door, and callers that are cut off once they are in."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from gpud.access.authority.folder import Wanted, issue
from gpud.access.authority.issuing import Client
from gpud.v1 import node_pb2, node_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc
from tests.access.fleet import Fleet, fleet, uri
from tests.running import refused

Code = grpc.StatusCode
# The file of the denied is read every second; what is under way then is cut at once.
CUT_SECONDS = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def node(channel: grpc.aio.Channel) -> Any:
    return node_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]


async def get_node(channel: grpc.aio.Channel) -> node_pb2.GetNodeResponse:
    answer = await node(channel).GetNode(node_pb2.GetNodeRequest(), timeout=60)
    assert isinstance(answer, node_pb2.GetNodeResponse)
    return answer


async def drained(messages: AsyncIterator[Any]) -> None:
    async for _ in messages:
        pass


async def is_let_in(channel: grpc.aio.Channel) -> bool:
    try:
        await get_node(channel)
    except grpc.aio.AioRpcError as error:
        return error.code() != Code.PERMISSION_DENIED
    return True


def signed_by(ca: Path, name: str, *, days: int = 1, usage: Any = None) -> tuple[bytes, bytes]:
    """A certificate (PEM, key) for a name of the fleet, otherwise as it should not be."""
    authority = x509.load_pem_x509_certificate((ca / "ca.pem").read_bytes())
    signer: Any = serialization.load_pem_private_key((ca / "ca-key.pem").read_bytes(), None)
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri(name))]), critical=True
        )
        .add_extension(
            x509.ExtendedKeyUsage([usage or ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, private


async def test_certificates_that_are_no_good_get_no_connection(place: Fleet) -> None:
    other = place.gpud.directory / "other"
    issue(other, Wanted(clients=(Client(name="root", uri=uri("root")),)), time.time())
    wrong = {
        "of another CA": (
            (other / "clients/root.pem").read_bytes(),
            (other / "clients/root-key.pem").read_bytes(),
        ),
        "expired": signed_by(place.folder, "root", days=-1),
        "a server's": signed_by(place.folder, "root", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }
    for what, pair in wrong.items():
        async with place.certified("root", pair=pair) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await get_node(channel)
            assert error.value.code() == Code.UNAVAILABLE, what
    # The same way with a good one.
    async with place.certified("root", pair=signed_by(place.folder, "root")) as channel:
        assert (await get_node(channel)).caller.name == uri("root")


async def test_nobody_comes_in_without_a_certificate(place: Fleet) -> None:
    credentials = grpc.ssl_channel_credentials(place.read("ca.pem"))
    async with grpc.aio.secure_channel(f"127.0.0.1:{place.port}", credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await get_node(channel)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{place.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await get_node(channel)


@pytest.mark.parametrize("by", ["name", "serial", "fingerprint"])
async def test_whoever_is_denied_is_cut_off_at_once(place: Fleet, by: str) -> None:
    certificate = x509.load_pem_x509_certificate(place.read("clients/anna.pem"))
    entry = {
        "name": uri("anna"),
        "serial": f"serial:{certificate.serial_number:x}",
        "fingerprint": f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
    }[by]
    async with place.certified("anna") as annas, place.certified("bert") as berts:
        watches = []
        for channel in (annas, berts):
            stub: Any = telemetry_pb2_grpc.TelemetryServiceStub(channel)  # type: ignore[no-untyped-call]
            watch = stub.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest())
            watches.append(aiter(watch))
            await anext(watches[-1])
        place.denied.write_text(f"{entry}  # left the fleet\n")
        async with asyncio.timeout(CUT_SECONDS):
            told = await refused(drained(watches[0]))
        assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "ACCESS_WITHDRAWN")
        # On the connection that is still open, and on a new one.
        told = await refused(get_node(annas))
        assert (told.code, told.reason) == (Code.PERMISSION_DENIED, "ACCESS_WITHDRAWN")
        async with place.certified("anna") as again:
            told = await refused(get_node(again))
            assert told.reason == "ACCESS_WITHDRAWN"
        # Nobody else noticed, and when it is taken back she is let in again.
        await anext(watches[1])
        place.denied.write_text("")
        async with asyncio.timeout(CUT_SECONDS):
            while not await is_let_in(annas):
                pass


def end_of(pem: bytes) -> int:
    return int(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())


async def test_a_new_certificate_is_served_without_a_restart(place: Fleet) -> None:
    async with place.certified("root") as channel:
        before = (await get_node(channel)).node.tls
        assert before.client_ca_expire_time.seconds == end_of(place.read("ca.pem"))
        servers = Wanted(servers=("127.0.0.1",), replace=True)
        issue(place.folder, servers, time.time())
        async with asyncio.timeout(CUT_SECONDS):
            while (await get_node(channel)).node.tls.reload_count == 0:
                pass
        # One that does not match its key is refused, told, and the one before goes on serving.
        (place.folder / "server.pem").write_bytes(place.read("clients/anna.pem"))
        async with asyncio.timeout(CUT_SECONDS):
            while not (told := (await get_node(channel)).node.tls).problem:
                pass
    assert told.refused_count == 1
    assert "server.pem" in told.problem
    assert told.certificate_expire_time.seconds >= before.certificate_expire_time.seconds
    # The journal tells it a moment later than the status.
    told_types: set[str] = set()
    async with place.certified("root") as channel, asyncio.timeout(CUT_SECONDS):
        while told_types != {"tls.reloaded", "tls.refused"}:
            events = await node(channel).ListEvents(node_pb2.ListEventsRequest(type="tls"))
            told_types = {each.type for each in events.events}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, and only root may be one")
def test_a_socket_lets_in_whom_its_mode_does(place: Fleet) -> None:
    assert place.socket("admin").stat().st_mode & 0o777 == 0o600
    for above in place.gpud.directory.parents:
        if above.stat().st_uid == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    place.gpud.directory.chmod(0o711)
    program = (
        "import socket, sys\n"
        "for path in sys.argv[1:]:\n"
        "    with socket.socket(socket.AF_UNIX) as s:\n"
        "        try: s.connect(path); print('in')\n"
        "        except PermissionError: print('out')\n"
    )
    paths = [str(place.socket(role)) for role in ("admin", "operator", "viewer")]
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    python = Path(sys.executable).resolve()
    done = subprocess.run(
        [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", str(python), "-c", program,
         *paths],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["out", "in", "in"]
