"""One daemon for the whole group, and one server of the real vLLM: a start takes half a minute."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.hugging_face.writing import Shape, write_folder
from tests.running import Gpud
from tests.vllm.processes import descendants

ROOT = Path(__file__).parents[2]
MISSING = "no vLLM: run packaging/vllm/get_vllm.sh, or set $VLLM"
KEY = "a-key-of-the-tests-of-vllm"
GPUCTL = (sys.executable, "-c", "from gpuctl.main import main; main()")
LOAD_SECONDS = 240
COMMON = """
engine = "vllm"
restart = "never"
max_num_seqs = 4
max_num_batched_tokens = 512
dtype = "float32"
enforce_eager = true
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here is of the group, and may take its time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(2 * LOAD_SECONDS))


@pytest.fixture(scope="session")
def vllm_program() -> Path:
    """The real one; a test that needs it fails without it, saying how to get it."""
    found = os.environ.get("VLLM") or shutil.which("vllm")
    path = Path(found) if found else ROOT / ".build" / "vllm" / "bin" / "vllm"
    if not path.exists():
        pytest.fail(MISSING)
    return path


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A daemon with vLLM, and its CLI."""

    gpud: Gpud
    python: Path  # of vLLM's own environment, where the openai client is

    def gpuctl(self, *words: str, code: int = 0) -> str:
        """What a command prints; fails unless it ends with that code."""
        ran = subprocess.run(
            [*GPUCTL, "--address", self.gpud.address, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=LOAD_SECONDS,
            cwd=ROOT,
        )
        assert ran.returncode == code, f"{words}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout if code == 0 else ran.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.gpuctl(*words, "-o", "json"))

    def openai(self, script: str, endpoint: str) -> Any:
        """What a script with the real openai client, as `client`, prints as JSON."""
        text = (
            "import json, sys\nfrom openai import OpenAI\n"
            "client = OpenAI(base_url=sys.argv[1] + '/v1', api_key=sys.argv[2], max_retries=0)\n"
        )
        ran = subprocess.run(
            [str(self.python), "-c", text + script, endpoint, KEY],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture(scope="session")
def daemon(vllm_program: Path) -> Iterator[Gpud]:
    """It has loaded nothing yet."""
    directory = Path(tempfile.mkdtemp(prefix="gpud-vllm."))
    models = directory / "models"
    write_folder(models / "tiny")
    write_folder(models / "long", Shape(context=8192))
    write_folder(models / "cut")
    cut = models / "cut" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    key = directory / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    tables = {
        "tiny": 'path = "tiny"\ncontext_length = 512\nsleep_mode = true\n'
        f'api_key_file = "{key}"\n',
        "embedder": 'path = "tiny"\ncontext_length = 512\nkind = "embedding"\n',
        "starved": 'path = "long"\ncontext_length = 8192\nkv_cache_bytes = "1MiB"\n',
        "cut": 'path = "cut"\n',
    }
    entries = "".join(f"[models.{name}]{COMMON}{text}" for name, text in tables.items())
    gpud = Gpud(
        directory=directory,
        cards=0,
        extra=f'\n[engines.vllm]\ncommand = ["{vllm_program}", "serve"]\n'
        f'[models]\nroots = ["{models}"]\n{entries}',
    )
    try:
        yield gpud.start()
    finally:
        # vLLM renames its processes, so that nothing in their arguments says whose they are.
        below = {each for pid in gpud.leftovers() for each in descendants(pid)}
        gpud.end()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def serving(daemon: Gpud, vllm_program: Path) -> Serving:
    """The daemon and its CLI."""
    return Serving(gpud=daemon, python=vllm_program.parent / "python")


@pytest.fixture(scope="session")
def told(serving: Serving) -> list[dict[str, Any]]:
    """All that was told of the load of the shared server."""
    lines = serving.gpuctl("load", "tiny", "--device", "host", "-o", "jsonl").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def tiny(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The shared server, READY: an instance as the CLI prints it."""
    made: dict[str, Any] = told[-1]["instance"]
    return made
