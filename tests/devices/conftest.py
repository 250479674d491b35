"""The stand-in library, compiled; boards with devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices import standin
from tests.devices.tables import CARD, OTHER, SLICE, Table


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of driver 550."""
    return standin.library_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of driver 470: without the symbols that came later."""
    return standin.library_folder(tmp_path_factory, old_driver=True)


@pytest.fixture
def table() -> Table:
    return Table(CARD, OTHER)


@pytest.fixture
def sliced() -> Table:
    return Table(CARD, SLICE)
