"""etcd as a peer: found or fetched, started on a Unix socket, and the calls that a lease takes.

Its API is spoken with messages that are described here, as far as these calls use them: field
numbers and names are those of etcd's `rpc.proto` and `kv.proto` (API v3).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.bench.servers import Server, running

ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / ".build" / "etcd"
FETCH_LIMIT_SECONDS = 120.0
# etcd names a Unix socket like a host and a port, and puts it into its working folder.
CLIENT_SOCKET = "client:0"
PEER_SOCKET = "peer:0"

_PACKAGE = "etcdserverpb"
_NUMBER, _BYTES = "TYPE_INT64", "TYPE_BYTES"
# Message → fields: (name, number, type or message name). A leading * means repeated.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "LeaseGrantRequest": (("TTL", 1, _NUMBER), ("ID", 2, _NUMBER)),
    "LeaseGrantResponse": (("ID", 2, _NUMBER), ("TTL", 3, _NUMBER), ("error", 4, "TYPE_STRING")),
    "LeaseRevokeRequest": (("ID", 1, _NUMBER),),
    "LeaseRevokeResponse": (),
    # target 1 is CREATE; result 0 is EQUAL.
    "Compare": (
        ("result", 1, "TYPE_INT32"),
        ("target", 2, "TYPE_INT32"),
        ("key", 3, _BYTES),
        ("create_revision", 5, _NUMBER),
    ),
    "PutRequest": (("key", 1, _BYTES), ("value", 2, _BYTES), ("lease", 3, _NUMBER)),
    "RequestOp": (("request_put", 2, "PutRequest"),),
    "TxnRequest": (("compare", 1, "*Compare"), ("success", 2, "*RequestOp")),
    "TxnResponse": (("succeeded", 2, "TYPE_BOOL"),),
}


class NoEtcd(Exception):
    """There is no etcd and none can be got; the text says why and what helps."""


def find() -> Path:
    """The program: on PATH, fetched before, or fetched now from the distribution's own mirror."""
    on_path = shutil.which("etcd")
    if on_path is not None:
        return Path(on_path)
    program = PLACE / "usr" / "bin" / "etcd"
    if not program.exists():
        _fetch(PLACE)
    return program


def _fetch(place: Path) -> None:
    """Unpack Debian's or Ubuntu's package into `place`, without root. Raises NoEtcd."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NoEtcd(_cannot(f"there is no {tool} here"))
    scratch = place.with_name(f"etcd.{os.getpid()}")
    try:
        packages, lists = scratch / "packages", scratch / "lists"
        for folder in (packages, lists / "partial"):
            folder.mkdir(parents=True)
        try:
            _run(["apt-get", "-qq", "download", "etcd-server"], packages)
        except NoEtcd:
            # The system's own lists are missing or old: new ones, in a folder of ours.
            private = ["-o", f"Dir::State::lists={lists}", "-o", "Acquire::Retries=2"]
            _run(["apt-get", *private, "-qq", "update"], packages)
            _run(["apt-get", *private, "-qq", "download", "etcd-server"], packages)
        (package,) = packages.glob("etcd-server_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(scratch / "root")], packages)
        shutil.rmtree(place, ignore_errors=True)
        (scratch / "root").rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(argv: list[str], folder: Path) -> None:
    try:
        subprocess.run(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=FETCH_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NoEtcd(_cannot(f"{argv[0]} took over {FETCH_LIMIT_SECONDS:g} s")) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoEtcd(_cannot(f"`{' '.join(argv)}`: {last}")) from error


def _cannot(why: str) -> str:
    return f"cannot get etcd: {why}; install etcd-server, or put an etcd on PATH"


@contextlib.asynccontextmanager
async def etcd(folder: Path) -> AsyncIterator[Server]:
    """One node, durable as it comes: every write is on the disk before its answer."""
    program = find()
    folder.mkdir(parents=True)
    client, peer = f"unix://{CLIENT_SOCKET}", f"unix://{PEER_SOCKET}"
    argv = ["env", "-C", str(folder), str(program), "--data-dir", str(folder / "data")]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
    argv += ["--listen-peer-urls", peer, "--logger", "zap", "--log-level", "warn"]
    async with running(argv, folder / CLIENT_SOCKET, folder, {}) as server:
        yield server


def version(program: Path) -> str:
    """As it tells it."""
    told = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, check=True, timeout=20
    )
    return told.stdout.splitlines()[0].rpartition(" ")[2]


class Client:
    """The three calls, over the same grpc.aio as gpud's clients."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._messages = _messages()
        self._grant = self._method(channel, "Lease", "LeaseGrant")
        self._revoke = self._method(channel, "Lease", "LeaseRevoke")
        self._txn = self._method(channel, "KV", "Txn")

    async def hold(self, key: bytes, value: bytes, ttl_seconds: int) -> int:
        """Take a key that nobody has, under a lease of its own; the lease's id."""
        make = self._messages
        lease = (await self._grant(make["LeaseGrantRequest"](TTL=ttl_seconds))).ID
        free = make["Compare"](target=1, key=key, create_revision=0)
        put = make["PutRequest"](key=key, value=value, lease=lease)
        request = make["TxnRequest"](compare=[free], success=[make["RequestOp"](request_put=put)])
        if not (await self._txn(request)).succeeded:
            raise RuntimeError(f"etcd refused {key!r}: somebody has it")
        return int(lease)

    async def let_go(self, lease: int) -> None:
        """Give the lease back, and the key with it."""
        await self._revoke(self._messages["LeaseRevokeRequest"](ID=lease))

    def _method(self, channel: grpc.aio.Channel, service: str, name: str) -> Any:
        return channel.unary_unary(
            f"/{_PACKAGE}.{service}/{name}",
            request_serializer=self._messages[f"{name}Request"].SerializeToString,
            response_deserializer=self._messages[f"{name}Response"].FromString,
        )


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="bench/etcd.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(
        name=name,
        number=number,
        label="LABEL_REPEATED" if kind.startswith("*") else "LABEL_OPTIONAL",
        type=kind if kind.startswith("TYPE_") else "TYPE_MESSAGE",
    )
    if not kind.startswith("TYPE_"):
        field.type_name = f".{_PACKAGE}.{kind.removeprefix('*')}"
