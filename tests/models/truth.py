"""The estimate beside what llama-server itself says that it allocated.

    LLAMA_SERVER=… python -m tests.models.truth

prints the table. The server loads phantoms (phantoms.py), so a cell takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpud.devices.snapshot import DeviceKind
from gpud.engines.llama_output import parse_buffers
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import read_header
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from tests.models import phantoms
from tests.real_engine import MISSING, find_server

LOAD_SECONDS = 30.0
HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
# Beside the server's own buffers: nothing that it prints.
UNPRINTED = {FootprintWhat.CONTEXT, FootprintWhat.MARGIN}
FLAGS = {
    "context_length": "-c", "parallel": "-np", "batch": "-b", "ubatch": "-ub",
    "cache_type_k": "-ctk", "cache_type_v": "-ctv", "flash_attention": "-fa",
}  # fmt: skip
# Buffers as large as the file says and nothing beside them, each told.
QUIET = ("-lv", "4", "--no-warmup", "--no-repack", "--cache-ram", "0", "-fit", "off")
LOADED = re.compile(r"model loaded|exiting due to|couldn't bind|error: ")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model and the options that it is loaded with."""

    model: str
    options: ModelOptions


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours and theirs, in bytes by item."""

    cell: Cell
    footprint: Footprint
    printed: dict[FootprintWhat, int]

    @property
    def estimated(self) -> dict[FootprintWhat, int]:
        return {
            item.what: item.bytes for item in self.footprint.items if item.what not in UNPRINTED
        }

    @property
    def ratio(self) -> float:
        return sum(self.estimated.values()) / sum(self.printed.values())

    @property
    def short_bytes(self) -> int:
        """How far the estimate without its margin lies under what the server took."""
        return sum(self.printed.values()) - sum(self.estimated.values())


MODELS: dict[str, Callable[[Path], None]] = {
    "tiny": phantoms.write_tiny,
    "llama-1b": partial(
        phantoms.decoder,
        embd=2048, layers=16, ff=8192, heads=32, kv_heads=8,
        vocabulary=32_000, kind="Q8_0", tied=True,
    ),
    "qwen3-0.6b": partial(
        phantoms.qwen3, layers=28, ff=3072, kv_heads=8, head=128, vocabulary=16_000, tied=True
    ),
    "narrow-ff": partial(phantoms.decoder, ff=768),
    "wide-heads": partial(phantoms.decoder, heads=32, head=128, kv_heads=16),
    "qwen3-moe": phantoms.qwen3_experts,
    "gemma3-1b": phantoms.gemma3,
    "gpt-oss": phantoms.gpt_oss,
    "deepseek-mla": phantoms.latent,
    "mamba2": phantoms.mamba2,
    "lfm2": phantoms.short_convolution,
    "bge-small": phantoms.encoder,
}  # fmt: skip


def cell(model: str, context_length: int, parallel: int = 1, **options: object) -> Cell:
    said = {"context_length": context_length, "parallel": parallel, **options}
    return Cell(model=model, options=ModelOptions(**said))  # type: ignore[arg-type]


CELLS = (
    cell("tiny", 512),
    cell("tiny", 2048, 4),
    cell("tiny", 2048, 4, kv_unified=True, ubatch=128),
    cell("tiny", 2048, cache_type_k="q8_0", cache_type_v="q4_0"),
    cell("llama-1b", 8192),
    cell("llama-1b", 16384, 4, cache_type_k="q8_0", cache_type_v="q8_0"),
    cell("llama-1b", 4096, flash_attention="off"),
    cell("llama-1b", 4100, 3, ubatch=2048),
    cell("qwen3-0.6b", 4096, 16),
    cell("qwen3-0.6b", 2048, embedding=True),
    cell("qwen3-0.6b", 4096, cache_type_k="f32", cache_type_v="f32"),
    cell("narrow-ff", 4096),
    cell("wide-heads", 4096),
    cell("wide-heads", 2048, flash_attention="off"),
    cell("qwen3-moe", 4096, 2),
    cell("gemma3-1b", 8192, 2),
    cell("gemma3-1b", 8192, 4, kv_unified=True),
    cell("gemma3-1b", 4096, flash_attention="off"),
    cell("gpt-oss", 16384, 4),
    cell("deepseek-mla", 8192),
    cell("deepseek-mla", 4096, flash_attention="off"),
    cell("mamba2", 4096, 4),
    cell("lfm2", 8192, 4),
    cell("bge-small", 512, 4, embedding=True),
)


class Workbench:
    """A server and a folder of models, each written when it is first asked for."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def compare(self, wanted: Cell) -> Comparison:
        path = self.folder / f"{wanted.model}.gguf"
        if not path.exists():
            MODELS[wanted.model](path)
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
        return Comparison(
            cell=wanted,
            footprint=estimate(header, wanted.options, HOST),
            printed=self.printed(path, wanted.options),
        )

    def printed(self, path: Path, options: ModelOptions) -> dict[FootprintWhat, int]:
        """What the server says of its buffers, summed by item."""
        sums: dict[FootprintWhat, int] = {}
        for buffer in parse_buffers(tuple(self._load(path, options))):
            if buffer.bytes:
                sums[buffer.what] = sums.get(buffer.what, 0) + buffer.bytes
        return sums

    def _load(self, path: Path, options: ModelOptions) -> Iterator[str]:
        flags = [
            word
            for name, flag in FLAGS.items()
            if (value := getattr(options, name)) is not None
            for word in (flag, str(value))
        ]
        flags += ["--kv-unified"] * bool(options.kv_unified)
        flags += ["--embedding"] * bool(options.embedding)
        server = subprocess.Popen(
            [self.server, "-m", path, "--host", self.folder / "socket.sock", *QUIET, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        watchdog = threading.Timer(LOAD_SECONDS, server.kill)
        watchdog.start()
        try:
            assert server.stderr is not None
            lines: list[str] = []
            for line in server.stderr:
                lines.append(line)
                if LOADED.search(line):
                    break
            if "model loaded" not in lines[-1]:
                raise RuntimeError(f"{path.name} {flags} did not load: {''.join(lines[-5:])}")
            return iter(lines)
        finally:
            watchdog.cancel()
            server.kill()
            server.communicate()
            with contextlib.suppress(FileNotFoundError):
                (self.folder / "socket.sock").unlink()


def table(comparisons: list[Comparison]) -> str:
    """A row an item, then the sum, for each cell."""
    rows = [f"{'model':13} {'options':44} {'item':9} {'ours':>12} {'server':>12} {'ratio':>6}"]
    for each in comparisons:
        options = ModelOptions.__dataclass_fields__
        said = {name: getattr(each.cell.options, name) for name in options}
        words = " ".join(f"{SHORT.get(n, n)}={v}" for n, v in said.items() if v is not None)
        for what in FootprintWhat:
            ours, theirs = each.estimated.get(what, 0), each.printed.get(what, 0)
            if ours or theirs:
                rows.append(row(each.cell.model, words, what.value, ours, theirs))
        ours, theirs = sum(each.estimated.values()), sum(each.printed.values())
        rows.append(row(each.cell.model, words, "SUM", ours, theirs))
    worst = max(comparisons, key=lambda each: abs(each.ratio - 1))
    rows.append(f"{len(comparisons)} cells; furthest from 1: {worst.cell.model} {worst.ratio:.3f}")
    return "\n".join(rows)


SHORT = {
    "context_length": "c", "parallel": "np", "ubatch": "ub", "cache_type_k": "k",
    "cache_type_v": "v", "flash_attention": "fa", "kv_unified": "kvu",
}  # fmt: skip


def row(model: str, options: str, what: str, ours: int, theirs: int) -> str:
    ratio = f"{ours / theirs:6.3f}" if theirs else "     –"
    return f"{model:13} {options:44} {what:9} {ours:12} {theirs:12} {ratio}"


def main() -> None:
    server = find_server()
    if server is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        workbench = Workbench(server, Path(folder))
        print(table([workbench.compare(wanted) for wanted in CELLS]))


if __name__ == "__main__":
    main()
