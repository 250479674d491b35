"""A file system that is really full: no new grants, what ends still ends, then all is well."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.store import BALLAST_BYTES
from gpud.v1 import node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.operations import Client, asking, state_of
from tests.proof.record import asked, record
from tests.proof.witness import ENDED, Witness, ticks
from tests.running import Gpud, calling, refusal_of

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

DISK_BYTES = 16 * 1024**2  # the ballast, a write-ahead log before its checkpoint, and room to fill
ROUNDS = asked(2, 10)
LIMIT_SECONDS = 60.0
MOST_WRITES = 4000  # far more than the disk has room for


def in_small_disk(state: Path) -> tuple[str, ...]:
    """What starts the daemon with a file system of its own as its state directory."""
    own = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
    mount = f'mount -t tmpfs -o size={DISK_BYTES},mode=700 small "$0" && exec "$@"'
    return (*own, "sh", "-c", mount, str(state))


def allowed(tmp_path: Path) -> bool:
    place = tmp_path / "probe"
    place.mkdir()
    command = [*in_small_disk(place), "true"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


class Disk:
    """The small file system, seen through the daemon that lives in it."""

    def __init__(self, gpud: Gpud) -> None:
        assert gpud.process is not None
        self.root = Path(f"/proc/{gpud.process.pid}/root{gpud.state}")
        self._filler = self.root / "filler"

    def fill(self) -> None:
        """Somebody else's data takes what is left, to the last block."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1024**2, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def empty(self) -> None:
        self._filler.unlink()

    def ballast_bytes(self) -> int:
        ballast = self.root / "ballast"
        return ballast.stat().st_size if ballast.exists() else 0


async def refused_for_want_of_room(client: Client, prefix: str) -> int:
    """Reserve until it is refused; how many were granted. Each of them must be kept."""
    for number in range(MOST_WRITES):
        try:
            await client.reserve(f"{prefix}-{number}", size=4096)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "STORE_READ_ONLY",
            )
            return number
    raise AssertionError("the disk was never full")


async def node_state(client: Client, wanted: int) -> node_pb2.Node:
    async with asyncio.timeout(LIMIT_SECONDS):
        async for _ in ticks(client.api):
            node = (await client.api.node.GetNode(node_pb2.GetNodeRequest())).node
            if node.state == wanted:
                return node
    raise TimeoutError


async def fill_and_empty(client: Client, disk: Disk, round_: int) -> None:
    long = await client.reserve(f"long-{round_}")
    stays = await client.reserve(f"stays-{round_}")
    short = await client.reserve(f"short-{round_}", ttl=Duration(seconds=2))
    assert disk.ballast_bytes() == BALLAST_BYTES

    disk.fill()
    await refused_for_want_of_room(client, f"full-{round_}")

    assert disk.ballast_bytes() == 0
    degraded = await node_state(client, node_pb2.NODE_STATE_DEGRADED)
    assert "full" in degraded.state_reason
    # What ends still ends, and what lives may still be renewed.
    release = pb.ReleaseRequest(name=long.name)
    ended = client.witness.keep((await client.api.reservations.Release(release)).reservation)
    assert ended.state == pb.RESERVATION_STATE_RELEASED
    renew = pb.RenewRequest(name=stays.name, ttl=Duration(seconds=7200))
    client.witness.keep((await client.api.reservations.Renew(renew)).reservation)
    client.witness.keep(await state_of(client, short.name, ENDED))
    with pytest.raises(grpc.aio.AioRpcError):
        await client.api.reservations.Reserve(asking(f"still-full-{round_}"))

    disk.empty()
    await node_state(client, node_pb2.NODE_STATE_READY)
    await client.reserve(f"again-{round_}")
    assert disk.ballast_bytes() == BALLAST_BYTES


async def test_a_full_disk_refuses_grants_and_still_releases(
    killable: Callable[[int], Gpud], tmp_path: Path
) -> None:
    if not allowed(tmp_path):
        pytest.skip("no file system of its own may be mounted here; test_store.py has the limit")
    began = time.monotonic()
    gpud = killable(0)
    gpud.state.mkdir()
    gpud.under = in_small_disk(gpud.state)
    witness = Witness(gpud=gpud)
    try:
        await asyncio.to_thread(gpud.start)
        disk = Disk(gpud)
        async with calling(gpud) as api:
            client = Client(api=api, witness=witness)
            for round_ in range(ROUNDS):
                await fill_and_empty(client, disk, round_)
        # Killed, it finds all that it said on the disk that was full (copied: it goes with it).
        assert gpud.process is not None
        os.kill(gpud.process.pid, signal.SIGSTOP)  # what is copied stands still
        shutil.copytree(disk.root, tmp_path / "copy")
        gpud.kill()
        gpud.under = ()
        shutil.copytree(tmp_path / "copy", gpud.state, dirs_exist_ok=True)
        await asyncio.to_thread(gpud.start)
        async with calling(gpud) as api:
            await witness.check(api)
    finally:
        gpud.end()
    record("I13 a full disk: times filled and emptied", ROUNDS, ROUNDS, len(witness.wrong),
           time.monotonic() - began)  # fmt: skip
    assert not witness.wrong, "\n".join(witness.wrong)


async def test_a_log_on_a_full_disk_holds_nothing_up(killable: Callable[[int], Gpud]) -> None:
    """Its first line ended the daemon."""
    gpud = killable(0)
    (gpud.directory / "log").symlink_to("/dev/full")
    try:
        await asyncio.to_thread(gpud.start)
        async with calling(gpud) as api:
            client = Client(api=api, witness=Witness(gpud=gpud))
            await client.reserve("logged-nowhere")
            await client.witness.check(api)
            assert client.witness.wrong == []
    finally:
        gpud.end()
