"""The denied are seen, and the audit is written, while all else that reads files hangs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import structs

from gpud.access.audit import Audit
from gpud.entrance import LOOK_SECONDS, Entrance
from gpud.events import Event
from gpud.settings import Access, Config
from gpud.settings import Audit as Settings
from tests.access.paper import NOW, Office
from tests.access.test_audit import entry, lines
from tests.fakes.clock import FakeClock


@contextlib.asynccontextmanager
async def hanging() -> AsyncIterator[None]:
    """The loop's threads, of which there is one here."""
    goes_on, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    hangs = loop.run_in_executor(None, goes_on.wait, 20)
    try:
        yield
    finally:
        goes_on.set()
        await hangs


async def test_the_denied_are_read_while_all_threads_of_the_loop_hang(tmp_path: Path) -> None:
    told: asyncio.Queue[Event] = asyncio.Queue()
    clock, denied = FakeClock(), tmp_path / "denied"
    denied.write_text("")
    config = Config(access=Access(denied=str(denied)))
    entrance = Entrance(config, tmp_path / "gpud.sock", tmp_path, clock, told.put_nowait)
    loop = asyncio.get_running_loop()
    watching = loop.create_task(entrance.watch())
    async with hanging():
        turn = asyncio.Event()
        loop.call_soon(turn.set)  # it sleeps by then
        await turn.wait()
        denied.write_text("anna@host\n")
        clock.advance(LOOK_SECONDS)
        async with asyncio.timeout(60):
            assert (await told.get()).type == "access.denied_changed"
        assert entrance.access.denied.names == {"anna@host"}
        watching.cancel()
        await asyncio.wait({watching})


async def test_what_prometheus_is_told_of_certificates(tmp_path: Path) -> None:
    office = Office(tmp_path).serve()
    for tls, has_ca in ((office.tls, True), (structs.replace(office.tls, client_ca=""), False)):
        config = Config(tls=tls)
        clock = FakeClock(wall=NOW)
        entrance = Entrance(config, tmp_path / "gpud.sock", tmp_path, clock, lambda _: None)
        state = entrance.certificate_state()
        assert state is not None
        samples = dict(line.split() for line in entrance.metrics().splitlines() if line[0] != "#")
        told = samples.get("gpud_tls_client_ca_not_after_seconds")
        assert told == (f"{state.client_ca_not_after_wall:.17g}" if has_ca else None)


async def test_the_audit_is_written_while_all_threads_of_the_loop_hang(tmp_path: Path) -> None:
    audit = Audit(Settings(), tmp_path, FakeClock())
    async with hanging():
        audit.record(entry())
        await audit.flush()
        assert len(lines(audit.path)) == 1
