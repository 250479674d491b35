"""A projector for images beside a model, against what the real server says of one."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import GgufHeader, read_header
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from gpud.units import MIB
from tests.models import phantoms
from tests.models.grid.projector import projector
from tests.models.truth import LOAD_SECONDS

CARD = DeviceTraits(kind=DeviceKind.SIMULATED, model_name="P106-100")
PRINTED = re.compile(r"reserve_compute_meta: +CPU compute buffer size = +([0-9.]+) MiB")
OPTIONS = ModelOptions(context_length=512, parallel=1)


def headers(folder: Path) -> tuple[GgufHeader, GgufHeader]:
    phantoms.decoder(folder / "text.gguf")
    projector(folder / "eyes.gguf")
    found = []
    for name in ("text.gguf", "eyes.gguf"):
        with (folder / name).open("rb") as file:
            found.append(read_header(file, (folder / name).stat().st_size))
    return found[0], found[1]


def more(with_one: Footprint, without: Footprint, what: FootprintWhat) -> int:
    sums = [
        sum(item.bytes for item in each.items if item.what is what) for each in (with_one, without)
    ]
    return sums[0] - sums[1]


@pytest.mark.engine
def test_its_compute_is_what_the_server_reserves(llama_server: Path, tmp_path: Path) -> None:
    text, eyes = headers(tmp_path)
    argv = [
        llama_server, "-m", tmp_path / "text.gguf", "--mmproj", tmp_path / "eyes.gguf",
        "-c", "512", "-np", "1", "-lv", "4", "-fit", "off", "--cache-ram", "0",
        "--host", tmp_path / "socket.sock",
    ]  # fmt: skip
    server = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    watchdog = threading.Timer(LOAD_SECONDS, server.kill)
    watchdog.start()
    try:
        assert server.stderr is not None
        told = next(match for line in server.stderr if (match := PRINTED.search(line)))
    finally:
        watchdog.cancel()
        server.kill()
        server.communicate()
    seeing = estimate(text, OPTIONS, CARD, projector=eyes)
    blind = estimate(text, OPTIONS, CARD)
    ours = more(seeing, blind, FootprintWhat.COMPUTE)
    assert ours == pytest.approx(float(told[1]) * MIB, rel=0.002)


def test_it_lies_on_the_first_device_as_large_as_its_file_says(tmp_path: Path) -> None:
    text, eyes = headers(tmp_path)
    seeing = estimate(text, OPTIONS, CARD, projector=eyes)
    blind = estimate(text, OPTIONS, CARD)
    assert more(seeing, blind, FootprintWhat.WEIGHTS) == eyes.tensor_bytes
    items = [item.source for item in seeing.items if item.what is FootprintWhat.WEIGHTS]
    assert items[1] == f"the projector's {len(eyes.tensors)} tensors"


def test_of_a_kind_that_was_never_compared_as_much_again_is_held(tmp_path: Path) -> None:
    text, eyes = headers(tmp_path)
    told = {**eyes.metadata, "clip.projector_type": "something-new"}
    strange = GgufHeader(
        version=3,
        architecture="clip",
        metadata=told,
        tensors=eyes.tensors,
        data_offset=0,
        file_bytes=0,
    )
    known = estimate(text, OPTIONS, CARD, projector=eyes)
    guessed = estimate(text, OPTIONS, CARD, projector=strange)
    above = more(guessed, known, FootprintWhat.MARGIN)
    assert above > 64 * MIB + 19 * MIB
