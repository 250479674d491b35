"""gpud's own auth socket, as gpuctl speaks to it."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path

from gpuctl.access.context import Context
from gpuctl.access.tokens import bearer_for
from gpud.access.mint import Mint, auth_path
from gpud.access.tokens import check_minted
from gpud.clock import SystemClock


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
