"""What became of a download is told once, however many loads waited for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gpud.models.model import HttpSource, Model
from gpud.models.sources.refusals import DownloadFailed, DownloadRefused
from tests.models.sources.origin import Origin, serving
from tests.models.sources.test_removal import Desk, entry

PATIENCE_SECONDS = 60.0


def noting(desk: Desk) -> list[tuple[str, str, str]]:
    told: list[tuple[str, str, str]] = []

    def note(type_: str, model: Model, reason: str) -> None:
        told.append((type_, model.name, reason))

    desk.fetching.note = note
    return told


async def test_two_loads_of_one_download_are_told_once(tmp_path: Path) -> None:
    content = b"GGUF" * 1000
    with serving(Origin(content)) as origin:
        desk = Desk(tmp_path)
        told = noting(desk)
        model = entry(HttpSource(url=origin.url, sha256=origin.sha256))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(desk.fetching.fetch(model, lambda _: None) for _ in range(2)))
            await desk.fetching.fetch(model, lambda _: None)  # it lies here now
    ((type_, name, reason),) = told
    assert (type_, name) == ("model.downloaded", "models/m")
    assert reason.startswith(f"{len(content)} bytes of ")


async def test_one_that_fails_says_why(tmp_path: Path) -> None:
    with serving(Origin(b"GGUF")) as origin:
        model = entry(HttpSource(url=origin.url, sha256=origin.sha256))
    desk = Desk(tmp_path)
    told = noting(desk)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises((DownloadFailed, DownloadRefused)) as caught:
            await desk.fetching.fetch(model, lambda _: None)  # nobody listens there any more
    assert told == [("model.download_failed", "models/m", str(caught.value))]
