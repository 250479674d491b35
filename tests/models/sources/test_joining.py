"""Loads that need one file wait for one download of it, whatever source brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.models.model import EngineKind, HttpSource, Model, ModelOptions
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.fetching import Fetching
from gpud.models.sources.jobs import Jobs, Step
from gpud.models.sources.refusals import DownloadRefused
from gpud.models.sources.rules import place_of
from tests.models.sources.downloading import left, terms
from tests.models.sources.origin import WAIT_SECONDS, Exchange, Origin, serving

CONTENT = b"GGUF" * 1000


def entry(origin: Origin, id_: str) -> Model:
    source = HttpSource(url=origin.url, sha256=Origin(CONTENT).sha256)
    return Model(
        id=id_, engine=EngineKind.LLAMA_CPP, kind=None, path="x", options=ModelOptions(),
        source=source,
    )  # fmt: skip


def refused_late(each: Exchange) -> None:
    """Nothing is there, as it says once the test lets it."""
    each.origin.holding.set()
    each.origin.go_on.wait(WAIT_SECONDS)
    each.begin(404, Content_Length=0)


@pytest.fixture
def bad() -> Iterator[Origin]:
    with serving(Origin(CONTENT, always=refused_late)) as made:
        yield made


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    clock = SystemClock()
    sums = Checksums(Jobs(clock, 1), lambda _: None, lambda: 0.0)
    jobs = Jobs(clock, 1, wait_seconds=WAIT_SECONDS)
    return Fetching(tmp_path, terms(), jobs, sums)


class Joiner:
    """Says once it was told of the download that it joined."""

    def __init__(self, joined: str) -> None:
        self._joined = joined
        self.has_joined = asyncio.Event()

    def tell(self, step: Step) -> None:
        if self._joined in str(step):
            self.has_joined.set()


async def joining(fetching: Fetching, bad: Origin, model: Model) -> list[BaseException | None]:
    """What comes of a load whose source is bad, and of one that joined its download."""
    joiner = Joiner(bad.url)
    async with asyncio.timeout(WAIT_SECONDS):
        first = asyncio.ensure_future(fetching.fetch(entry(bad, "bad"), lambda _: None))
        assert await asyncio.to_thread(bad.holding.wait, WAIT_SECONDS)
        second = asyncio.ensure_future(fetching.fetch(model, joiner.tell))
        await joiner.has_joined.wait()
        bad.go_on.set()
        return await asyncio.gather(first, second, return_exceptions=True)


async def test_who_joined_a_source_that_failed_asks_its_own(
    fetching: Fetching, bad: Origin, tmp_path: Path
) -> None:
    with serving(Origin(CONTENT)) as good:
        model = entry(good, "good")
        first, second = await joining(fetching, bad, model)
        assert isinstance(first, DownloadRefused)
        assert second is None
        assert model.source is not None
        assert left(tmp_path) == [place_of(model.source)]
        assert len(good.requests) == 1


async def test_who_joined_its_own_source_does_not_ask_it_again(
    fetching: Fetching, bad: Origin
) -> None:
    both = await joining(fetching, bad, entry(bad, "bad-too"))
    assert [type(each) for each in both] == [DownloadRefused] * 2
    assert len(bad.requests) == 1
