"""A daemon that is looked at: simulated cards whose readings a test scripts, and the host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.running import Api, Gpud, calling

GIB = 1024**3


@dataclass(kw_only=True)
class Rig:
    """The daemon and its script."""

    gpud: Gpud

    def script(self, **cards: dict[str, Any]) -> None:
        """What its cards show from now on."""
        path = self.gpud.directory / "scenario.json"
        made = path.with_suffix(".new")
        made.write_text(json.dumps(cards))
        made.rename(path)


@pytest.fixture(scope="session")
def _shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("rig")
    cards = '[[devices.simulated]]\ncard = "rtx-4090"\ncount = 3\n'
    scenario = f'scenario = "{directory / "scenario.json"}"\n'
    gpud = Gpud(directory=directory, cards=0, devices=scenario, extra=cards)
    rig = Rig(gpud=gpud)
    rig.script()
    try:
        gpud.start()
        yield rig
    finally:
        gpud.end()


@pytest.fixture
def rig(_shared_rig: Rig) -> Rig:
    """As it was made, whatever the test before did with it."""
    _shared_rig.script()
    return _shared_rig


@pytest.fixture
async def api(rig: Rig) -> AsyncIterator[Api]:
    """To do beside it what others do."""
    async with calling(rig.gpud) as api:
        yield api
