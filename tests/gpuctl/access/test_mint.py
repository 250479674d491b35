"""gpud's own auth socket, as gpuctl speaks to it."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gpuctl.access.context import Context
from gpuctl.access.tokens import bearer_for
from gpuctl.client import Client
from gpud.access.mint import Mint, auth_path
from gpud.access.tokens import check_minted
from gpud.clock import SystemClock
from gpud.v1 import node_pb2
from tests.running import Gpud


async def test_gpud_mints_what_gpuctl_asks_for(tmp_path: Path) -> None:
    main = tmp_path / "gpud.sock"
    clock = SystemClock()
    mint = Mint(clock, "rig")
    beside = auth_path(main)
    assert beside is not None
    await mint.start(beside)
    try:
        for name in ("gpud.sock", "gpud.operator.sock"):
            bearer = bearer_for(Context(address=f"unix://{tmp_path}/{name}"), 10)
            token = await asyncio.to_thread(bearer.token)
            assert token is not None
            minted = check_minted(mint.key, token, clock.now().boottime)
            assert minted.name == f"{pwd.getpwuid(os.getuid()).pw_name}@rig"
            assert bearer.says == f"as {minted.name}"
    finally:
        await mint.stop()


def test_after_a_restart_of_gpud_no_old_token_is_shown_and_told_of(
    gpud: Callable[..., Gpud],
) -> None:
    """A client that lives on, as `gpuctl run` does, is no stranger who was turned away."""
    daemon = gpud(cards=1).start()
    with closing(Client(Context(address=f"unix://{daemon.socket}"), 60)) as client:
        for _ in range(3):
            assert client.call(client.node.GetNode, node_pb2.GetNodeRequest()).node
            before = client._bearer.token()
            daemon.restart()
            assert client.call(client.node.GetNode, node_pb2.GetNodeRequest()).node
            assert client._bearer.token() != before
        request = node_pb2.ListEventsRequest(type="access.refused")
        assert not client.call(client.node.ListEvents, request).events
    assert "IDENTITY_MISSING" not in daemon.log
    audit = daemon.state / "audit.jsonl"
    assert not audit.exists() or "IDENTITY_MISSING" not in audit.read_text()
