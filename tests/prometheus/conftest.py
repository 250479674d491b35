"""A real gpud with a real llama-server, scraped by a real Prometheus as packaging/ tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from gpud.v1 import instances_pb2, reservations_pb2
from tests.end_to_end.driving import load
from tests.project.tree import PACKAGING
from tests.running import GIB, Gpud, calling

# Ends a hang, and nothing else.
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05
MODEL = """
[engines.llama_cpp]
binary = "{engine}"
[engine_metrics]
interval = "200ms"
[models]
roots = ["{roots}"]
[models.chat]
path = "tiny.gguf"
context_length = 512
parallel = 1
labels = {{ service = "voice" }}
[[devices.simulated]]
card = "titan-x"
count = 2
[http]
listen = "127.0.0.1:{port}"
targets_file = "{folder}/targets.json"
"""
SCENARIO = {"gpu0": {"xid": [31], "utilization_percent": 90, "temperature_celsius": 70}}


@dataclass(frozen=True, kw_only=True)
class Scraped:
    """Both of them, while they run."""

    gpud: Gpud
    gpud_port: int
    port: int
    engine: instances_pb2.Instance

    def get(self, path: str) -> str:
        """A page of gpud."""
        return fetch(f"http://127.0.0.1:{self.gpud_port}{path}")

    def ask(self, path: str, **query: str) -> Any:
        """What Prometheus answers. Fails with its words when it refuses."""
        words = urllib.parse.urlencode(query)
        answer = json.loads(fetch(f"http://127.0.0.1:{self.port}/api/v1/{path}?{words}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def until(self, expression: str) -> list[dict[str, Any]]:
        """Those that it has once it has any."""
        return until(lambda: self.query(expression), expression)


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def until(found: Callable[[], Any], what: str) -> Any:
    """What is found once it is anything. Another program tells of no event."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(_POLL_SECONDS)
    pytest.fail(f"never came to anything: {what}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def scraped(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_bin: Path,
    llama_server: Path,
    tiny_model: Path,
) -> Iterator[Scraped]:
    """One for all the tests here: they only read."""
    folder, gpud_port, port = tmp_path_factory.mktemp("scraped"), free_port(), free_port()
    (folder / "models").mkdir()
    shutil.copy(tiny_model, folder / "models" / "tiny.gguf")
    (folder / "scenario.json").write_text(json.dumps(SCENARIO))
    extra = MODEL.format(
        engine=llama_server, roots=folder / "models", port=gpud_port, folder=folder
    )
    daemon = Gpud(
        directory=folder,
        cards=0,
        devices=f'scenario = "{folder}/scenario.json"',
        extra=extra,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.end)
        daemon.start()
        engine = asyncio.run(_busy(daemon))
        stack.enter_context(_prometheus(folder, prometheus_bin, gpud_port, port))
        made = Scraped(gpud=daemon, gpud_port=gpud_port, port=port, engine=engine)
        _complete(engine.endpoint)
        made.until("count_over_time(gpud_model_generated_tokens_total[1m]) > 2")
        made.until('up{job="gpud-engines"} == 1')
        yield made


async def _busy(daemon: Gpud) -> instances_pb2.Instance:
    """A model that serves, and a reservation of each kind: held, waiting, refused."""
    async with calling(daemon) as api:
        engine = await load(api, "chat")
        for request in (
            reservations_pb2.ReserveRequest(
                bytes=GIB, devices=["gpu0"], labels={"service": "voice"}
            ),
            reservations_pb2.ReserveRequest(bytes=12 * GIB - GIB, devices=["gpu0"]),
        ):
            request.owner = "anna"
            request.max_wait.seconds = 600
            await api.reservations.Reserve(request)
        with pytest.raises(grpc.aio.AioRpcError):
            await api.reservations.Reserve(reservations_pb2.ReserveRequest(bytes=1 << 50))
        return engine


def _complete(endpoint: str) -> None:
    body = json.dumps({"prompt": "hello", "n_predict": 16}).encode()
    request = urllib.request.Request(
        f"{endpoint}/completion", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        answer.read()


@contextlib.contextmanager
def _prometheus(folder: Path, programs: Path, gpud_port: int, port: int) -> Iterator[None]:
    """Configured by packaging/prometheus/prometheus.yml, but for ports and haste."""
    text = (PACKAGING / "prometheus" / "prometheus.yml").read_text()
    config = yaml.safe_load(text.replace("127.0.0.1:9551", f"127.0.0.1:{gpud_port}"))
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    for job in config["scrape_configs"]:
        for each in job.get("http_sd_configs", ()):
            each["refresh_interval"] = "250ms"
    config["scrape_configs"].append(
        {
            "job_name": "file",
            "file_sd_configs": [{"files": [f"{folder}/targets.json"], "refresh_interval": "1s"}],
        }
    )
    config["scrape_configs"].append(
        {
            "job_name": "voice",
            "metrics_path": "/metrics/voice",
            "static_configs": [{"targets": [f"127.0.0.1:{gpud_port}"]}],
        }
    )
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PACKAGING / "prometheus" / "gpud.rules.yml", folder)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                programs / "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: _is_ready(process, port, folder / "prometheus.log"), "Prometheus")
        yield
    finally:
        process.kill()
        process.wait()


def _is_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"Prometheus ended:\n{log.read_text()[-2000:]}")
    try:
        return "is Ready" in fetch(f"http://127.0.0.1:{port}/-/ready")
    except OSError:
        return False
