"""What all rooms share; the ladder that the tests stand on is in README.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.real_engine import MISSING, find_server, write_tiny
from tests.real_prometheus import MISSING as NO_PROMETHEUS
from tests.real_prometheus import find_prometheus
from tests.running import Api, Gpud, calling, ghostly

# How long an example takes is the machine's affair: its default is a failure after 200 ms.
settings.register_profile("gpud", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gpud")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what its daemons logged."""
    report: Any = yield
    if report.when == "call" and report.failed:
        used = getattr(item, "funcargs", {})
        for name, value in used.items():
            for gpud in value if isinstance(value, list) else [value]:
                if isinstance(gpud, Gpud):
                    report.sections.append((f"log of {name}", gpud.log[-3000:]))
    return report


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpud]:
    """A daemon shared by tests that leave it alive."""
    gpud = ghostly(tmp_path_factory.mktemp("running"))
    try:
        yield gpud.start()
    finally:
        gpud.end()


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The real one; a test that needs it fails without it, saying how to get it."""
    found = find_server()
    if found is None:
        pytest.fail(MISSING)
    return found


@pytest.fixture(scope="session")
def prometheus_bin() -> Path:
    """The folder of the real prometheus and promtool; a test that needs them fails without."""
    found = find_prometheus()
    if found is None:
        pytest.fail(NO_PROMETHEUS)
    return found


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the real engine loads."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[list[Gpud]]:
    """What `gpud` made."""
    made: list[Gpud] = []
    yield made
    for each in made:
        each.end()


@pytest.fixture
def gpud(tmp_path: Path, daemons: list[Gpud]) -> Callable[..., Gpud]:
    """Makes daemons, not yet started, that a test may kill; ended with the test."""

    def make(**settings: Any) -> Gpud:
        directory = tmp_path / f"d{len(daemons)}"
        directory.mkdir()
        daemons.append(Gpud(directory=directory, **settings))
        return daemons[-1]

    return make


@pytest.fixture
async def api(running: Gpud) -> AsyncIterator[Api]:
    """The shared daemon's API."""
    async with calling(running) as api:
        yield api
