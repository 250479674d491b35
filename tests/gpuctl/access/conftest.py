"""The auth socket beside the scripted daemon's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.daemon import FakeDaemon
from tests.gpuctl.access.auth_socket import AuthSocket


@pytest.fixture
def auth(daemon: FakeDaemon, tmp_path: Path) -> Iterator[AuthSocket]:
    with AuthSocket(tmp_path / "gpud.auth.sock") as made:
        yield made
