"""The stand-in library, compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices import standin


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of driver 550."""
    return standin.library_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of driver 470: without the symbols that came later."""
    return standin.library_folder(tmp_path_factory, old_driver=True)
